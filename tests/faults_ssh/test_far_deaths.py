"""Processes on a host are killed: what they carried is lost and runs again, in the same directory."""

from __future__ import annotations

import pytest

from hsm_core.events import AttemptFinished, SourceUp
from hsm_core.task import Cause, TaskState
from hsm_core.testing import alive, wait_until
from tests.faults_ssh.conftest import FarSweep

POINTS = "+x=range(6)"


def at_the_gate(far: FarSweep) -> list[int]:
    """Start a launcher; returns the processes of tasks 2 and 3, which wait."""
    far.launch(POINTS, "+gated=2")
    return [far.pid_there(index) for index in (2, 3)]


def check_second_attempts(far: FarSweep) -> None:
    """Tasks 2 and 3 were lost once; their second attempts found what the first ones had left."""
    launcher = far.launcher
    assert launcher is not None
    assert launcher.wait(60) == 0, far.said()
    state = far.state()
    assert {task.state for task in state.tasks.values()} == {TaskState.COMPLETED}
    assert far.submissions() == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}
    lost = [e.task for e in far.heard(AttemptFinished) if e.outcome.cause is Cause.LOST]
    assert sorted(lost) == [2, 3]
    for index in (2, 3):
        assert len(far.starts(index)) == 2
        assert far.output(index, "resumed").exists()
    assert state.sources["far"].disabled is None
    far.audit()


def test_the_agent(far: FarSweep) -> None:
    pids = at_the_gate(far)
    agent = far.agent()
    agent.kill()
    wait_until(lambda: not any(map(alive, pids)), "its tasks to end")
    far.wait_heard(SourceUp)
    assert far.agent() != agent
    far.open_gate()
    check_second_attempts(far)


def test_the_agent_while_it_is_out_of_reach(far: FarSweep) -> None:
    pids = at_the_gate(far)
    far.host.stop()
    far.agent().kill()
    wait_until(lambda: not any(map(alive, pids)), "its tasks to end")
    far.open_gate()
    far.host.start()
    check_second_attempts(far)


def test_the_agent_while_there_is_no_launcher(far: FarSweep) -> None:
    pids = at_the_gate(far)
    far.kill()
    far.agent().kill()
    wait_until(lambda: not any(map(alive, pids)), "its tasks to end")
    far.open_gate()
    far.complete()
    check_second_attempts(far)


@pytest.mark.parametrize("victim", ["task", "supervisor", "zygote"])
def test_below_the_agent(far: FarSweep, victim: str) -> None:
    pids = at_the_gate(far)
    agent = far.agent()
    (zygote,) = agent.children()
    for pid in pids if victim != "zygote" else ():
        (process,) = (p for p in zygote.children(recursive=True) if p.pid == pid)
        (process if victim == "task" else process.parents()[0]).kill()
    if victim == "zygote":
        zygote.kill()
    wait_until(lambda: not any(map(alive, pids)), "the tasks to end")
    far.open_gate()
    check_second_attempts(far)
    assert far.heard(SourceUp) == []
