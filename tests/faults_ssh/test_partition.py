"""A host is out of reach for longer than its tasks are waited for: others run them, what it still brings is stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsm_core.events import AttemptFinished, ResultStale, SourceDown, SourceUp
from hsm_core.task import Cause, TaskState
from hsm_core.testing import wait_until
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.faults_ssh.test_lost_connection import impatient
from tests.testbed.network import NetnsHost

__all__ = ["impatient"]

pytestmark = pytest.mark.usefixtures("impatient")

SOON = {"unreachable_timeout": 1.0, "orphan_timeout": 1.0}


@pytest.fixture
def far(make_far: MakeFar, netns_host: NetnsHost) -> FarSweep:
    """One slot on a host with a line of its own, one slot here."""
    return make_far(netns_host, {"max_parallel_tasks": 1}, local=1, compute=SOON)


def open_gate_here() -> None:
    Path(os.environ["HOME"], "gate").touch()


def start(far: FarSweep, count: int) -> int:
    """Start tasks that wait at the gates; returns the index of the one that runs on the host."""
    far.launch(f"+x=range({count})", "+gated=0", "hydra.launcher.strategy=round_robin")
    wait_until(lambda: len(far.running()) == 2, f"a task on each source; launcher said:\n{far.said()}")
    return far.running()["far"]


def lost_ends(far: FarSweep) -> list[AttemptFinished]:
    return [event for event in far.heard(AttemptFinished) if event.outcome.cause is Cause.LOST]


def assert_all_done(far: FarSweep, count: int, moved: int) -> None:
    state = far.state()
    assert {task.state for task in state.tasks.values()} == {TaskState.COMPLETED}, far.said()
    assert far.submissions() == {index: 2 if index == moved else 1 for index in range(count)}
    for index in range(count):
        assert far.output(index, "result.txt").read_text() == f"{index}\n"


def test_a_host_that_is_gone_for_good(far: FarSweep, netns_host: NetnsHost) -> None:
    """The sweep ends without it; what it still does changes nothing, and ends by itself."""
    moved = start(far, 2)
    netns_host.partition()
    far.wait_heard(SourceDown)
    open_gate_here()
    assert far.launchers[-1].wait(60) == 0, far.said()
    (lost,) = lost_ends(far)
    assert (lost.task, lost.source) == (moved, "far")
    assert "out of reach for 1 s" in lost.outcome.message
    assert_all_done(far, 2, moved)
    assert "far" in far.said()
    far.open_gate()
    netns_host.heal()
    far.audit()
    assert far.there(moved, "result.txt").exists()


def test_its_task_still_runs_when_it_is_back(far: FarSweep, netns_host: NetnsHost) -> None:
    """There it ends, since somebody else has it."""
    moved = start(far, 3)
    netns_host.partition()
    wait_until(lambda: bool(lost_ends(far)), "the task to be given up")
    process = int(far.there(moved, "starts").read_text().split()[0])
    netns_host.heal()
    far.wait_heard(SourceUp)
    wait_until(lambda: not Path(f"/proc/{process}").exists(), "the attempt that was given up to end")
    far.open_gate()
    assert far.launchers[-1].wait(60) == 0, far.said()
    assert_all_done(far, 3, moved)
    (stale,) = far.heard(ResultStale)
    assert (stale.task, stale.attempt, stale.outcome.cause) == (moved, 1, Cause.CANCELLED)
    far.audit()


def test_its_task_has_ended_when_it_is_back(far: FarSweep, netns_host: NetnsHost) -> None:
    """That result is told as stale and counts for nothing."""
    moved = start(far, 3)
    netns_host.partition()
    wait_until(lambda: bool(lost_ends(far)), "the task to be given up")
    (far.host.home / "gate").touch()
    far.wait_there(moved, "result.txt")
    far.there(moved, "result.txt").write_text("of the first attempt\n")
    (far.host.home / "gate").unlink()
    netns_host.heal()
    far.wait_heard(ResultStale)
    far.open_gate()
    assert far.launchers[-1].wait(60) == 0, far.said()
    (stale,) = far.heard(ResultStale)
    assert (stale.task, stale.attempt, stale.source) == (moved, 1, "far")
    assert_all_done(far, 3, moved)
    far.audit()
