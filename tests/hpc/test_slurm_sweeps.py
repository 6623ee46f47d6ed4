"""Whole sweeps on a real Slurm: their launchers die, are interrupted, and are followed by others."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.journal import entries
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until
from tests.faults.conftest import Sweep, interruptible
from tests.testbed.slurm import SlurmCluster

__all__ = ["interruptible"]


class ClusterSweep(Sweep):
    """A sweep whose only source is a cluster."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        super().__init__(folder)
        self.cluster = cluster
        (folder / "hsm_config.yaml").write_text("compute_sources: {cluster: {type: hpc, system: slurm}}\n")

    def submissions(self) -> Counter[int]:
        """How often each task was submitted."""
        found = entries(self.directory / ".hsm" / "journal.jsonl")
        return Counter(entry.event.task for entry in found if isinstance(entry.event, ev.AttemptSubmitted))

    def monitor(self) -> str:
        return self.hsm("monitor", "watch", "--once", str(self.directory))

    def arrays(self) -> set[str]:
        """The jobs that the cluster knows of."""
        return {name.partition("_")[0] for name in self.cluster.jobs()}

    def assert_done_once(self, count: int) -> None:
        """Each task completed, was submitted once and ran once; and the audit."""
        assert {task.state for task in self.state().tasks.values()} == {TaskState.COMPLETED}, self.said()
        assert self.submissions() == dict.fromkeys(range(count), 1)
        for index in range(count):
            assert len(self.output(index, "starts").read_text().split()) == 1
        self.audit()
        assert [*(self.directory / ".hsm" / "hpc" / "cluster").iterdir()] == []


@pytest.fixture
def sweep(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterSweep]:
    for name, value in slurm.environ.items():
        monkeypatch.setenv(name, value)
    made = ClusterSweep(tmp_path, slurm)
    yield made
    made.end_launchers()
    slurm.clear()


def test_a_launcher_that_is_killed(sweep: ClusterSweep) -> None:
    sweep.launch("+x=range(6)", "+gated=3")
    sweep.wait_for(0, "starts")
    sweep.wait_for_finished(3)
    pids = [sweep.pid(index) for index in (3, 4, 5)]
    before, arrays = sweep.finished(), sweep.arrays()
    sweep.kill()
    assert all(alive(pid) for pid in pids)
    launcher = sweep.complete()
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert sweep.finished().items() >= before.items()
    assert [sweep.pid(index) for index in (3, 4, 5)] == pids
    assert sweep.arrays() <= arrays
    sweep.assert_done_once(6)


@pytest.mark.parametrize("point", ["submitted", "batch_written", "array_submitted"])
def test_a_launcher_that_dies_while_it_submits(sweep: ClusterSweep, point: str) -> None:
    """What was not taken runs after all, what was is not submitted again."""
    sweep.crashpoint = point
    assert sweep.launch("+x=range(4)").wait(60) == -signal.SIGKILL
    sweep.crashpoint = ""
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert {task.state for task in sweep.state().tasks.values()} == {TaskState.COMPLETED}, sweep.said()
    for index in range(4):
        assert len(sweep.output(index, "starts").read_text().split()) == 1
    if point == "array_submitted":
        assert sum(sweep.submissions().values()) <= 4
    sweep.audit()


def test_an_interrupted_launcher_ends_its_jobs(sweep: ClusterSweep) -> None:
    launcher = sweep.launch("+x=range(40)", "+gated=0")
    pid = sweep.pid(0)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) != 0
    assert not alive(pid)
    wait_until(lambda: sweep.cluster.run("squeue", "-h") == "", "the last job to end")
    sweep.audit()
    sweep.open_gate()
    assert sweep.complete().wait(90) == 0, sweep.said()
    assert len(sweep.finished()) == 40
    sweep.audit()


def test_a_launcher_that_goes_leaves_its_jobs(sweep: ClusterSweep) -> None:
    launcher = sweep.launch("+x=range(3)", "+gated=0", "hydra.launcher.on_interrupt=detach")
    pids = [sweep.pid(index) for index in range(3)]
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) != 0
    assert all(alive(pid) for pid in pids)
    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    sweep.assert_done_once(3)


def test_the_monitor_shows_the_node_of_a_task(sweep: ClusterSweep) -> None:
    launcher = sweep.launch("+x=1", "+gated=0")
    node = re.compile(r"^cluster: 1 job running on n\d$", re.MULTILINE)
    sweep.wait_for(0, "starts")
    wait_until(lambda: node.search(sweep.monitor()) is not None, "a node")
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert node.search(sweep.monitor()) is None


def test_jobs_that_wait_for_another_one(sweep: ClusterSweep) -> None:
    job = sweep.cluster.submit(f"until [ -e '{sweep.folder}/go' ]; do sleep 0.1; done")
    launcher = sweep.launch("+x=range(2)", f"hydra.launcher.dependency='afterok:{job}'")
    wait_until(lambda: "waits for another job" in sweep.said(), "to be told that jobs wait")
    wait_until(lambda: "cluster: 2 jobs pending (waits for another job)" in sweep.monitor(), "the monitor to tell so")
    assert not sweep.output(0, "starts").exists()
    (sweep.folder / "go").touch()
    assert launcher.wait(90) == 0, sweep.said()
    sweep.assert_done_once(2)
