"""The launcher dies, and the sweep is completed: nothing finished is lost, nothing living doubled."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from hsm_core.remote import marks
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

POINTS = "+x=range(8)"


def test_kill_in_the_middle_then_complete(sweep: Sweep) -> None:
    sweep.launch(POINTS, "+gated=4")
    running = sweep.pid(4)
    wait_until(lambda: len(sweep.finished()) == 4, "the first four tasks")
    finished = sweep.finished()
    sweep.kill()
    sweep.wait_for_peace()
    assert not alive(running)

    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    sweep.audit()
    now = sweep.finished()
    assert set(now) == set(range(8))
    assert {index: now[index] for index in finished} == finished
    for index in range(4):
        assert len(sweep.output(index, "starts").read_text().split()) == 1


def test_complete_at_once_after_the_kill(sweep: Sweep) -> None:
    """The agent is still ending its tasks when the next launcher comes: it must wait for that."""
    sweep.launch(POINTS, "+gated=0", "hydra.launcher.grace=30")
    sweep.wait_for(0, "starts")
    sweep.wait_for(1, "starts")
    sweep.kill()
    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    sweep.audit()
    assert set(sweep.finished()) == set(range(8))


@pytest.mark.timeout(600)
def test_kill_at_random_moments(sweep: Sweep) -> None:
    moments = random.Random(7)
    sweep.launch("+x=range(40)", "+sleep=0.05")
    wait_until(sweep.has_begun, "the first line of the journal")
    kept: dict[int, tuple[str, int]] = {}
    for number in range(20):
        if number % 2:
            sweep.wait_for_finished(len(kept) + moments.randint(1, 3))
        time.sleep(moments.uniform(0.0, 0.1 if number % 2 else 0.8))  # no event: that is what is random
        sweep.kill()
        now = sweep.finished()
        assert now.items() >= kept.items()
        kept = now
        sweep.complete()
    assert sweep.launcher is not None
    assert sweep.launcher.wait(60) == 0, sweep.said()
    sweep.audit()
    assert set(sweep.finished()) == set(range(40))
    assert sweep.finished().items() >= kept.items()


CHAINS = {
    "opening": "claimed owner_written owned frozen registered begun sources_starting",
    "going on": "begun journal_copied processes_ended adopted half_file_written event_decided:2 event_told:4",
    "running": "intent_journaled:3 intents_synced intents_synced:2 submitted submitted:2 outcome_decided:2"
    " outcome_journaled:3 outcomes_synced:4",
    "closing": "sources_stopped end_journaled processes_ended reports_written tidied release_written",
    "every line": " ".join(f"event_journaled:{line}" for line in range(3, 9)),
}
"""points at which one launcher after the other dies"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chain", CHAINS)
def test_one_launcher_after_the_other_dies(sweep: Sweep, chain: str) -> None:
    kept: dict[int, tuple[str, int]] = {}
    for sweep.crashpoint in CHAINS[chain].split():
        launcher = sweep.complete() if sweep.has_begun() else sweep.launch("+x=range(24)")
        assert launcher.wait(60) == -signal.SIGKILL, f"at {sweep.crashpoint}: {sweep.said()}"
        now = sweep.finished() if sweep.has_begun() else {}
        assert now.items() >= kept.items()
        kept = now
    sweep.crashpoint = ""
    launcher = sweep.complete() if sweep.has_begun() else sweep.launch("+x=range(24)")
    assert launcher.wait(60) == 0, sweep.said()
    sweep.audit()
    assert set(sweep.finished()) == set(range(24))
    assert sweep.finished().items() >= kept.items()


def test_a_result_the_launcher_did_not_live_to_see_is_kept(sweep: Sweep) -> None:
    """The launcher is stopped while a task ends, then killed: the record is there, the journal knows nothing."""
    launcher = sweep.launch(POINTS, "+gated=0")
    sweep.wait_for(0, "starts")
    sweep.wait_for(1, "starts")
    launcher.send_signal(signal.SIGSTOP)
    sweep.open_gate()
    for index in (0, 1):
        record = sweep.directory / f".hsm/results/task_{index + 1:03d}.1.1.json"
        wait_until(record.exists, "the record of a task")
    sweep.kill()
    assert sweep.complete().wait(60) == 0, sweep.said()
    sweep.audit()
    for index in range(8):
        assert len(sweep.output(index, "starts").read_text().split()) == 1


def test_failed_tasks_are_kept_until_asked_for(sweep: Sweep) -> None:
    assert sweep.launch(POINTS, "+bad=3").wait(60) == 1
    assert sweep.complete().wait(60) == 0
    assert "--retry-failed" in sweep.said()
    assert sweep.state().tasks[3].state is TaskState.FAILED
    before = sweep.finished()
    assert sweep.complete("--retry-failed").wait(60) == 1
    assert len(sweep.output(3, "starts").read_text().split()) == 2
    assert sweep.finished() == before
    sweep.audit()


def test_complete_only_some_tasks(sweep: Sweep) -> None:
    sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(2, "starts")
    wait_until(lambda: len(sweep.finished()) == 2, "the first two tasks")
    sweep.kill()
    sweep.wait_for_peace()  # the agent gives the running tasks their grace: they would find the gate open
    sweep.open_gate()
    assert sweep.complete("--tasks", "task_005:task_006").wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == {0, 1, 4, 5}
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == set(range(8))
    sweep.audit()


def test_a_running_sweep_is_not_completed(sweep: Sweep) -> None:
    launcher = sweep.launch(POINTS, "+gated=0")
    sweep.wait_for(0, "starts")
    with open(sweep.log, "ab"):
        other = sweep.complete()
        assert other.wait(60) != 0
    assert str(launcher.pid) in sweep.said().split("sweep_")[-1] or f"pid {launcher.pid}" in sweep.said()
    sweep.open_gate()
    assert launcher.wait(60) == 0
    sweep.audit()


def test_agent_killed(sweep: Sweep) -> None:
    """Its tasks die with it, are lost, and run again on the agent that takes its place."""
    launcher = sweep.launch(POINTS, "+gated=2")
    first = sweep.pid(2)
    sweep.wait_for(3, "starts")
    agent = next(pid for pid in marks.marked(f"{sweep.directory}:") if "agent" in marks.command(pid))
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not alive(first), "the task to die with its agent")
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    sweep.audit()
    assert set(sweep.finished()) == set(range(8))
    assert sweep.state().tasks[2].failures["lost"] == 1
