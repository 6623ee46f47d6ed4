"""The launcher dies or leaves while tasks run on a host: they go on, and the next launcher finds them."""

from __future__ import annotations

import filecmp
import signal
import time

import pytest

from hsm_core.events import AttemptFinished, ResultsCollected, SourceStarted
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.sshd import SshHost

POINTS = "+x=range(6)"


def run_to_the_gate(far: FarSweep, *overrides: str) -> list[int]:
    """Tasks 0 and 1 are done and home, tasks 2 and 3 run; returns the processes of these."""
    far.launch(POINTS, "+gated=2", *overrides)
    pids = [far.pid_there(index) for index in (2, 3)]
    wait_until(lambda: sum(len(e.attempts) for e in far.heard(ResultsCollected)) == 2, "the first results to come home")
    return pids


def test_running_tasks_are_adopted(far: FarSweep) -> None:
    pids = run_to_the_gate(far)
    finished = far.finished()
    assert set(finished) == {0, 1}
    far.kill()
    agent = far.agent().pid
    far.complete()
    far.wait_heard(SourceStarted, 2)
    far.kill()
    launcher = far.complete()
    assert all(map(alive, pids))
    assert far.agent().pid == agent
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    assert {index: far.finished()[index] for index in finished} == finished
    assert [far.starts(index) for index in (2, 3)] == [[pid] for pid in pids]
    far.assert_done_once(6)


def test_tasks_end_while_there_is_no_launcher(far: FarSweep) -> None:
    run_to_the_gate(far)
    far.kill()
    far.open_gate()
    for index in (2, 3):
        far.wait_there(index, f"../.hsm/results/task_{index + 1:03d}.1.1.json")
        assert not far.output(index, "result.txt").exists()
    assert far.complete().wait(60) == 0, far.said()
    far.assert_done_once(6)


def test_killed_between_the_end_of_tasks_and_their_collection(make_far: MakeFar, ssh_host: SshHost) -> None:
    far = make_far(ssh_host, compute={"result_collection_interval": 600})
    far.launch(POINTS, "+gated=2")
    far.wait_heard(AttemptFinished, 2)
    assert not any(far.output(index, "result.txt").exists() for index in (0, 1))
    far.kill()
    far.open_gate()
    assert far.complete().wait(60) == 0, far.said()
    far.assert_done_once(6)


def test_killed_while_results_come_home(far: FarSweep) -> None:
    far.launch("+x=range(2)", "+do=\"(out / 'large').write_bytes(b'x' * (100 << 20))\"")
    incoming = far.directory / ".hsm" / "incoming" / "far"

    def some_came() -> bool:
        return any(path.stat().st_size for path in incoming.rglob("*.??????") if path.is_file())

    wait_until(some_came, "a file to be under way")
    far.kill()
    assert far.complete().wait(60) == 0, far.said()
    for index in range(2):
        assert filecmp.cmp(far.output(index, "large"), far.there(index, "large"), shallow=False)
    far.assert_done_once(2)


@pytest.mark.parametrize("point", ["intents_synced:2", "submitted:2", "outcome_journaled:3", "sources_stopped"])
def test_killed_at(point: str, far: FarSweep) -> None:
    far.crashpoint = point
    assert far.launch(POINTS).wait(60) == -signal.SIGKILL, far.said()
    far.crashpoint = ""
    assert far.complete().wait(60) == 0, far.said()
    assert set(far.finished()) == set(range(6))
    for index in range(6):
        assert len(far.starts(index)) == 1
    far.audit()


def test_detach_leaves_tasks_running(far: FarSweep) -> None:
    pids = run_to_the_gate(far, "hydra.launcher.on_interrupt=detach")
    assert far.kill(signal.SIGINT) == 130
    assert all(map(alive, pids))
    assert "hsm complete" in far.said()
    far.open_gate()
    assert far.complete().wait(60) == 0, far.said()
    assert [far.starts(index) for index in (2, 3)] == [[pid] for pid in pids]
    far.assert_done_once(6)


def test_an_interrupt_ends_everything_and_brings_home_what_is_there(make_far: MakeFar, ssh_host: SshHost) -> None:
    far = make_far(ssh_host, compute={"result_collection_interval": 600})
    far.launch(POINTS, "+gated=2")
    for index in (2, 3):
        far.wait_there(index, "checkpoint")
    assert far.kill(signal.SIGINT) == 130
    far.audit()
    assert [far.output(index, "result.txt").exists() for index in range(4)] == [True, True, False, False]
    assert [far.output(index, "checkpoint").exists() for index in range(4)] == [True] * 4
    far.open_gate()
    assert far.complete().wait(60) == 0, far.said()
    assert [len(far.starts(index)) for index in range(6)] == [1, 1, 2, 2, 1, 1]
    assert far.output(2, "resumed").exists()
    far.audit()


def test_an_agent_that_nobody_comes_back_to(make_far: MakeFar, ssh_host: SshHost) -> None:
    """It ends itself once it has neither launcher nor tasks, and not before; the rest is in the records."""
    far = make_far(ssh_host, compute={"orphan_timeout": 1.0})
    pids = run_to_the_gate(far)
    agent = far.agent()
    far.kill()
    wait_until(lambda: not ssh_host.programs("sshd"), "the host to notice that the launcher is gone")
    time.sleep(2.0)  # its patience and more: what is shown is that nothing happens
    assert agent.is_running()
    assert all(map(alive, pids))
    far.open_gate()
    far.wait_for_hosts()
    assert {task.index for task in far.state().tasks.values() if task.state is TaskState.RUNNING} == {2, 3}
    assert far.complete().wait(60) == 0, far.said()
    far.assert_done_once(6)
