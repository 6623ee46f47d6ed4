"""Whole sweeps in pilots on a real Slurm: pilots and launchers end in the middle of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.config import SourceConfig
from hsm_core.journal import entries
from hsm_core.sources.hpc import pilots
from hsm_core.task import Cause, TaskState
from hsm_core.testing import Bench, alive, wait_until
from tests.faults.conftest import APP, Sweep, interruptible
from tests.testbed import schedulers
from tests.testbed.slurm import SlurmCluster

__all__ = ["interruptible"]


class PilotSweep(Sweep):
    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.configure()

    def configure(self, **settings: object) -> None:
        told = {"pilots": 2, "max_parallel_tasks": 4, "default_resources": "mem=1500MB", **settings}
        words = ", ".join(f"{key}: {value}" for key, value in told.items())
        text = f"compute_sources:\n  cluster: {{type: hpc, system: slurm, mode: pilot, {words}}}\n"
        (self.folder / "hsm_config.yaml").write_text(text)

    def jobs(self) -> set[str]:
        """Those that pend or run."""
        return set(self.cluster.run("squeue", "-h", "-r", "-o", "%i").split())

    def assert_completed(self, count: int) -> None:
        states = [task.state for task in self.state().tasks.values()]
        assert states == [TaskState.COMPLETED] * count, self.said()
        self.audit()

    def assert_done_once(self, count: int) -> None:
        self.assert_completed(count)
        for index in range(count):
            assert len(self.output(index, "starts").read_text().split()) == 1

    def causes(self) -> set[Cause | None]:
        found = entries(self.directory / ".hsm" / "journal.jsonl")
        return {e.event.outcome.cause for e in found if isinstance(e.event, ev.AttemptFinished)}


@pytest.fixture
def sweep(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PilotSweep]:
    for name, value in slurm.environ.items():
        monkeypatch.setenv(name, value)
    made = PilotSweep(tmp_path, slurm)
    yield made
    made.end_launchers()
    slurm.clear()


def test_many_tasks_take_few_jobs(sweep: PilotSweep) -> None:
    launcher = sweep.launch("+x=range(30)", "+gated=28")
    sweep.wait_for(29, "starts")
    assert len(sweep.jobs()) == 2
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert sweep.jobs() == set()
    sweep.assert_done_once(30)
    assert not [*(sweep.directory / ".hsm" / "hpc" / "cluster").glob("hsm-*")]


def test_no_more_tasks_at_a_time_than_a_pilot_has_slots(sweep: PilotSweep) -> None:
    sweep.configure(pilots=1, max_parallel_tasks=2)
    launcher = sweep.launch("+x=range(6)", "+gated=0")
    pids = [sweep.pid(index) for index in (0, 1)]
    assert len(sweep.jobs()) == 1
    assert not sweep.output(2, "starts").exists()
    assert all(alive(pid) for pid in pids)
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    sweep.assert_done_once(6)


def test_a_pilot_that_somebody_ends(sweep: PilotSweep) -> None:
    """Its tasks run again in another one."""
    sweep.configure(pilots=1, max_parallel_tasks=2)
    launcher = sweep.launch("+x=range(4)", "+gated=0")
    pids = [sweep.pid(index) for index in (0, 1)]
    (job,) = sweep.jobs()
    sweep.cluster.run("scancel", job)
    wait_until(lambda: not any(alive(pid) for pid in pids), "its tasks to end")
    sweep.open_gate()
    assert launcher.wait(90) == 0, sweep.said()
    sweep.assert_completed(4)
    assert sweep.causes() == {None, Cause.LOST}


def test_a_pilot_whose_node_dies(sweep: PilotSweep) -> None:
    sweep.configure(pilots=1, max_parallel_tasks=2)
    launcher = sweep.launch("+x=range(3)", "+gated=0")
    pids = [sweep.pid(index) for index in (0, 1)]
    (job,) = sweep.jobs()
    node = sweep.cluster.run("squeue", "-h", "-o", "%N").strip()
    sweep.cluster.power_off(node)
    try:
        sweep.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_until(lambda: not any(alive(pid) for pid in pids), "its tasks to end")
        sweep.open_gate()
        assert launcher.wait(90) == 0, sweep.said()
    finally:
        sweep.cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
        sweep.cluster.start_node(node)
    sweep.assert_completed(3)
    assert job not in sweep.jobs()


def test_a_launcher_that_is_killed(sweep: PilotSweep) -> None:
    """The pilots go on, and another launcher takes them over with all that runs in them."""
    sweep.launch("+x=range(8)", "+gated=4")
    sweep.wait_for(7, "starts")
    sweep.wait_for_finished(4)
    pids = [sweep.pid(index) for index in range(4, 8)]
    before, jobs = sweep.finished(), sweep.jobs()
    sweep.kill()
    assert all(alive(pid) for pid in pids)
    launcher = sweep.complete()
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert sweep.finished().items() >= before.items()
    assert [sweep.pid(index) for index in range(4, 8)] == pids
    assert sweep.jobs() == set()
    assert len(jobs) == 2
    sweep.assert_done_once(8)


def test_what_ends_while_there_is_no_launcher(sweep: PilotSweep) -> None:
    sweep.launch("+x=range(4)", "+gated=0")
    pids = [sweep.pid(index) for index in range(4)]
    sweep.kill()
    sweep.open_gate()
    wait_until(lambda: not any(alive(pid) for pid in pids), "the tasks to end")
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert [sweep.pid(index) for index in range(4)] == pids
    sweep.assert_done_once(4)


def test_pilots_that_end_while_there_is_no_launcher(sweep: PilotSweep) -> None:
    sweep.launch("+x=range(4)", "+gated=0")
    pids = [sweep.pid(index) for index in range(4)]
    sweep.kill()
    sweep.cluster.clear()
    wait_until(lambda: not any(alive(pid) for pid in pids), "the tasks to end")
    sweep.open_gate()
    assert sweep.complete().wait(90) == 0, sweep.said()
    sweep.assert_completed(4)


def test_an_interrupted_launcher_ends_its_pilots(sweep: PilotSweep) -> None:
    launcher = sweep.launch("+x=range(8)", "+gated=0")
    pids = [sweep.pid(index) for index in range(4)]
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) != 0
    assert not any(alive(pid) for pid in pids)
    wait_until(lambda: sweep.jobs() == set(), "the last pilot to end")
    sweep.audit()


def test_pilots_that_are_refused(sweep: PilotSweep) -> None:
    sweep.configure(queue="nowhere")
    assert sweep.launch("+x=range(2)").wait(60) != 0
    assert "its pilots are of no use: sbatch: " in sweep.said()
    assert "nowhere" in sweep.said()


def test_an_app_that_does_not_run_there(sweep: PilotSweep) -> None:
    """No other pilot is tried."""
    missing = "import os\nif 'SLURM_JOB_ID' in os.environ:\n    import nothing_of_this_name\n"
    (sweep.folder / "app.py").write_text(missing + APP)
    assert sweep.launch("+x=range(2)").wait(60) != 0
    assert "nothing_of_this_name" in sweep.said()
    assert sweep.jobs() == set()


def test_pilots_with_nothing_to_do_give_their_nodes_back(
    sweep: PilotSweep, slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedulers.use(slurm.environ, monkeypatch)
    monkeypatch.setattr(pilots, "IDLE", 0.3)
    (tmp_path / "bench").mkdir()
    config = SourceConfig(type="hpc", mode="pilot", default_resources="mem=1500MB")
    bench = Bench(pilots.PilotSource("cluster", config, 2), tmp_path / "bench")
    bench.start()
    try:
        assert bench.run(0, "do=return").outcome.completed
        wait_until(lambda: sweep.jobs() == set(), "the pilot to go")
        assert bench.run(1, "do=return").outcome.completed
    finally:
        bench.source.stop()
