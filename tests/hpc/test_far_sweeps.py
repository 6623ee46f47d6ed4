"""Whole sweeps on a real Slurm whose login node is reached by SSH: all that its jobs leave comes home.

Launchers die and go there, and the connection is lost; jobs never notice, and none runs twice.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core.events import AttemptFinished, SourceDown, SourceStarted, SourceUp
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until
from tests.faults_ssh.conftest import FarSweep, interruptible
from tests.testbed import login_node
from tests.testbed.fixtures import MakeHost, client_key, far_python, make_host, ssh_home
from tests.testbed.slurm import SlurmCluster
from tests.testbed.sshd import SshHome

__all__ = ["client_key", "far_python", "interruptible", "make_host", "ssh_home"]

MakeSweep = Callable[..., FarSweep]


@pytest.fixture
def make_far(
    slurm: SlurmCluster, make_host: MakeHost, ssh_home: SshHome, far_python: Path, tmp_path: Path
) -> Iterator[MakeSweep]:
    """Makes a sweep whose only source `far` is the cluster: `make_far({"retry_attempts": 1}, queue="low")`."""
    made: list[FarSweep] = []

    def make(compute: dict[str, Any] | None = None, **fields: object) -> FarSweep:
        host = make_host(login_node.settings(slurm.environ))
        ssh_home.trust(host)
        config = login_node.config(host, **{"python": str(far_python), "max_parallel_tasks": 8, **fields})
        made.append(FarSweep(tmp_path, {"far": (host, config)}, compute=compute or {}))
        return made[-1]

    yield make
    for sweep in made:
        sweep.end_launchers()
    slurm.clear()


@pytest.fixture
def far(make_far: MakeSweep) -> FarSweep:
    return make_far()


def batches(far: FarSweep) -> list[Path]:
    """The folders of batches on the login node."""
    return [*(far.place() / ".hsm" / "hpc" / "far").iterdir()]


def test_all_comes_home(far: FarSweep) -> None:
    launcher = far.launch("+x=range(6)", "+gated=5", "+bad=1", "hydra.launcher.raise_on_failure=false")
    wait_until(far.output(5, "checkpoint").exists, "what a running task has written so far to come home")
    far.open_gate()
    assert launcher.wait(90) == 0, far.said()
    states = [far.state().tasks[index].state for index in range(6)]
    assert states == [TaskState.COMPLETED, TaskState.FAILED, *[TaskState.COMPLETED] * 4]
    assert far.submissions() == dict.fromkeys(range(6), 1)
    assert {index: text for index, (text, _) in far.finished().items()} == {i: f"{i}\n" for i in (0, 2, 3, 4, 5)}
    assert "ValueError: bad point 1" in (far.directory / ".hsm" / "results" / "task_002.1.1.json").read_text()
    assert (far.output(3, ".hydra") / "overrides.yaml").read_text() == "- +x=3\n- +gated=5\n- +bad=1\n"
    assert batches(far) == []
    assert far.host.logins() == 1
    assert len(far.heard(SourceDown)) == 0
    far.audit()


@pytest.mark.parametrize(("trusted", "shown"), [(None, "TaskError: subprocess."), (True, "subprocess.")])
def test_only_from_a_trusted_one_errors_are_made_again(make_far: MakeSweep, trusted: bool | None, shown: str) -> None:
    far = make_far(trusted=trusted)
    assert far.launch("+x=0", "+do=\"import subprocess; raise subprocess.SubprocessError('no luck')\"").wait(90) == 1
    assert f"\n{shown}SubprocessError: no luck\n" in far.said().replace("hsm_core.exceptions.", "")


def test_a_task_runs_again_where_it_left_something(make_far: MakeSweep) -> None:
    far = make_far({"retry_attempts": 1})
    fails = "(out / 'resumed').exists() or 1 / 0"
    assert far.launch("+x=range(2)", f'+do="{fails}"').wait(90) == 0, far.said()
    assert [len(far.starts(index)) for index in range(2)] == [2, 2]
    assert far.submissions() == {0: 2, 1: 2}
    far.audit()


def test_a_launcher_that_is_killed(make_far: MakeSweep, slurm: SlurmCluster) -> None:
    """Some tasks are done and home by then, some run, some pend; and some of these end while nobody is there."""
    far = make_far(default_resources="nodes=2:exclusive=true")
    far.launch("+x=range(6)", "+gated=2")
    pids = [far.pid_there(index) for index in (2, 3)]
    wait_until(lambda: len(far.finished()) == 2, f"the first results to come home: {far.said()}")
    before, jobs = far.finished(), {name.partition("_")[0] for name in slurm.jobs()}
    far.kill()
    far.complete()
    far.wait_heard(SourceStarted, 2)
    assert all(map(alive, pids))
    far.kill()
    far.open_gate()
    for index in (2, 3):
        far.wait_there(index, f"../.hsm/results/task_{index + 1:03d}.1.1.json")
        assert not far.output(index, "result.txt").exists()
    launcher = far.complete()
    assert launcher.wait(120) == 0, far.said()
    assert {index: far.finished()[index] for index in before} == before
    assert [far.starts(index) for index in (2, 3)] == [[pid] for pid in pids]
    assert {name.partition("_")[0] for name in slurm.jobs()} <= jobs
    assert batches(far) == []
    far.assert_done_once(6)


@pytest.mark.parametrize("point", ["submitted", "batch_written", "array_submitted"])
def test_a_launcher_that_dies_while_it_submits(far: FarSweep, point: str) -> None:
    far.crashpoint = point
    assert far.launch("+x=range(4)").wait(60) == -signal.SIGKILL
    far.crashpoint = ""
    assert far.complete().wait(90) == 0, far.said()
    assert set(far.finished()) == set(range(4))
    assert [len(far.starts(index)) for index in range(4)] == [1] * 4
    if point == "array_submitted":
        assert far.submissions() == dict.fromkeys(range(4), 1)
    far.audit()


def test_sessions_are_killed(far: FarSweep) -> None:
    launcher = far.launch("+x=range(6)", "+gated=2")
    for index in (2, 3):
        far.pid_there(index)
    far.host.kill_sessions()
    far.wait_heard(SourceUp)
    far.host.kill_sessions()
    far.wait_heard(SourceUp, 2)
    far.open_gate()
    assert launcher.wait(90) == 0, far.said()
    assert len(far.heard(SourceDown)) == 2
    far.assert_done_once(6)


def test_sshd_is_gone_while_tasks_end(far: FarSweep) -> None:
    launcher = far.launch("+x=range(6)", "+gated=2")
    for index in (2, 3):
        far.pid_there(index)
    far.host.stop()
    far.wait_heard(SourceDown)
    far.open_gate()
    for index in range(2, 6):
        far.wait_there(index, f"../.hsm/results/task_{index + 1:03d}.1.1.json")
    far.host.start()
    assert launcher.wait(120) == 0, far.said()
    assert len(far.heard(SourceUp)) == 1
    far.assert_done_once(6)


def test_an_interrupt_ends_our_jobs_and_no_others(far: FarSweep, slurm: SlurmCluster) -> None:
    other = slurm.submit("sleep 600", f"--uid={far.host.user}", "--output=/dev/null")
    slurm.wait_for(other, "RUNNING")
    launcher = far.launch("+x=range(20)", "+gated=2")
    pid = far.pid_there(3)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) != 0
    assert not alive(pid)
    wait_until(lambda: slurm.run("squeue", "-h", "-o", "%A").split() == [other], "our last job to end")
    assert far.output(3, "checkpoint").exists()
    slurm.clear()
    far.audit()
    far.open_gate()
    assert far.complete().wait(120) == 0, far.said()
    assert set(far.finished()) == set(range(20))
    assert far.output(3, "resumed").exists()
    far.audit()


def test_a_launcher_that_goes_leaves_its_jobs(far: FarSweep) -> None:
    launcher = far.launch("+x=range(3)", "+gated=0", "hydra.launcher.on_interrupt=detach")
    pids = [far.pid_there(index) for index in range(3)]
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) != 0
    assert all(map(alive, pids))
    far.open_gate()
    assert far.complete().wait(90) == 0, far.said()
    far.assert_done_once(3)
    assert len(far.heard(AttemptFinished)) == 3
