"""Signals before the limit, and jobs that a real Slurm starts again: their tasks go on where they were."""

from __future__ import annotations

import json

import pytest

from hsm_core.events import AttemptFinished, AttemptStarted, Note
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.task import Attempt, Cause
from hsm_core.testing import Bench, alive, wait_until
from tests.testbed.schedulers import MakeBench
from tests.testbed.slurm import SlurmCluster


@pytest.fixture
def cluster(either_cluster: SlurmCluster) -> SlurmCluster:
    return either_cluster


@pytest.fixture
def make_bench(cluster: SlurmCluster, make_bench: MakeBench) -> MakeBench:
    """On the cluster, which is cleared when all is stopped."""
    return make_bench


def begin(bench: Bench, *overrides: str) -> Attempt:
    attempt = bench.attempt(0, *overrides)
    bench.source.submit([attempt])
    bench.started(attempt)
    bench.wait_for_file(bench.output(0, "hanging"))
    return attempt


def job_of(cluster: SlurmCluster) -> str:
    (job,) = [name for name, state in cluster.jobs().items() if state == "RUNNING"]
    return job


def warn(bench: Bench, cluster: SlurmCluster) -> None:
    """What Slurm does before a job's limit, for `--signal=B:USR2@90`; returns once the task has saved."""
    cluster.run("scancel", "--batch", "--signal=USR2", job_of(cluster))
    bench.wait_for_file(bench.output(0, "checkpoint"))


def assert_went_on(bench: Bench, attempt: Attempt) -> None:
    """The attempt was started twice, goes on from its checkpoint, and ended once."""
    finished = bench.finished(attempt)
    assert finished.outcome.completed, finished
    assert finished.outcome.return_value == "half of it"
    assert bench.output(0, "starts").read_text() == "11"
    started = [event for event in bench.seen if isinstance(event, AttemptStarted)]
    assert len({event.pid for event in started}) == 2
    assert {event.output_dir for event in started} == {str(bench.directory / "0")}
    assert [event.attempt for event in bench.seen if isinstance(event, AttemptFinished)] == [1]
    assert [path.name for path in bench.records.iterdir()] == [f"{attempt.id}.json"]
    assert json.loads((bench.records / f"{attempt.id}.json").read_text())["pid"] == started[-1].pid
    words = [event.message for event in bench.seen if isinstance(event, Note) and event.level == "WARNING"]
    assert len(words) == 1
    assert words[0].endswith("of task_001 again; it goes on in its directory")
    wait_until(lambda: not list((bench.directory / ".hsm" / "hpc" / "cluster").iterdir()), "the batch to be removed")


def test_a_task_that_is_preempted_goes_on_from_its_checkpoint(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(queue="low", requeue=True, default_resources="nodes=4:exclusive=true")
    attempt = begin(bench, "do=save")
    warn(bench, cluster)
    cluster.submit("true", "--partition=high", "--nodes=4", "--exclusive")
    assert_went_on(bench, attempt)


def test_a_task_that_is_requeued_goes_on_from_its_checkpoint(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(requeue=True)
    attempt = begin(bench, "do=save")
    warn(bench, cluster)
    cluster.run("scontrol", "requeue", job_of(cluster))
    assert_went_on(bench, attempt)


def test_the_warning_before_the_limit(make_bench: MakeBench) -> None:
    """Slurm sends it when it looks the next time, within 30 s."""
    bench = make_bench(default_walltime="10m", signal_delay=599)
    saves, deaf = bench.attempt(0, "do=save"), bench.attempt(1, "do=hang", "stubborn=false")
    bench.source.submit([saves, deaf])
    bench.wait_for_file(bench.output(1, "hanging"))
    bench.wait_for_file(bench.output(0, "checkpoint"))
    assert alive(int(bench.output(0, "pid").read_text()))
    bench.source.cancel([saves])
    assert bench.finished(saves).outcome.cause is Cause.CANCELLED
    assert alive(int(bench.output(1, "pid").read_text()))


def test_the_limit_after_the_warning(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    """What was saved is there for the next attempt."""
    bench = make_bench(default_walltime="10m", requeue=True)
    attempt = begin(bench, "do=save")
    warn(bench, cluster)
    cluster.expire(job_of(cluster))
    assert bench.finished(attempt).outcome.cause is Cause.TIMEOUT
    again = bench.run(0, "do=save", number=2)
    assert (again.outcome.completed, again.outcome.return_value) == (True, "half of it")
    assert bench.output(0, "starts").read_text() == "12"


def test_a_task_that_catches_nothing_outlives_the_warning(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench()
    attempt = begin(bench, "do=hang", "stubborn=false")
    cluster.run("scancel", "--batch", "--signal=USR2", job_of(cluster))
    after = bench.run(1, "do=return", "value=1")
    assert after.outcome.completed
    assert alive(int(bench.output(0, "pid").read_text()))
    bench.source.cancel([attempt])
    assert bench.finished(attempt).outcome.message == "ended before it was done"


def test_a_node_that_is_cut_off_while_its_task_lives(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    """The job starts again elsewhere; before it does, what lives on there has ended."""
    bench = make_bench(requeue=True)
    attempt = begin(bench, "do=save")
    warn(bench, cluster)
    pid = int(bench.output(0, "pid").read_text())
    node = cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%N").strip()
    cluster.kill_node(node)
    assert alive(pid)
    try:
        wait_until(lambda: bench.output(0, "starts").read_text() == "11", "the second start")
        assert not alive(pid)
        assert_went_on(bench, attempt)
    finally:
        cluster.start_node(node)


def leave(bench: Bench) -> None:
    """The launcher goes."""
    bench.source.leave()
    bench.source = HpcSource("cluster", bench.source.config, 4)


def come_back(bench: Bench, attempt: Attempt) -> None:
    """A later launcher comes."""
    bench.source.start(bench.context(2), bench.events.put)
    bench.source.attach([attempt])


def test_a_task_is_requeued_while_nobody_watches(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(requeue=True)
    attempt = begin(bench, "do=save")
    warn(bench, cluster)
    leave(bench)
    cluster.run("scontrol", "requeue", job_of(cluster))
    (batch,) = (bench.directory / ".hsm" / "hpc" / "cluster").iterdir()
    bench.wait_for_file(batch / f"{attempt.id}.0.ended")
    assert json.loads((bench.records / f"{attempt.id}.json").read_text())["cause"] == "cancelled"
    come_back(bench, attempt)
    outcome = bench.finished(attempt).outcome
    assert (outcome.completed, outcome.return_value) == (True, "half of it")


def test_a_time_limit_that_passes_while_nobody_watches(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(default_walltime="10m")
    attempt = begin(bench, "do=hang", "stubborn=false")
    leave(bench)
    cluster.expire(job_of(cluster))
    (batch,) = (bench.directory / ".hsm" / "hpc" / "cluster").iterdir()
    bench.wait_for_file(batch / f"{attempt.id}.0.ended")
    come_back(bench, attempt)
    assert bench.finished(attempt).outcome.cause is Cause.TIMEOUT
