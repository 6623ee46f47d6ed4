"""What goes wrong with jobs on a real Slurm, and what a source says of it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from hsm_core.events import AttemptFinished, Note, SourceDown, SourceUp
from hsm_core.sources.hpc import scheduler, watch
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


def hang(bench: Bench, index: int = 0, number: int = 1) -> Attempt:
    """An attempt that runs until it is ended."""
    attempt = bench.attempt(index, "do=hang", "stubborn=false", number=number)
    bench.source.submit([attempt])
    bench.started(attempt)
    bench.wait_for_file(bench.output(index, "hanging"))
    return attempt


def job_of(cluster: SlurmCluster) -> str:
    (job,) = [name for name, state in cluster.jobs().items() if state == "RUNNING"]
    return job


def node_of(cluster: SlurmCluster) -> str:
    return cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%N").strip()


def test_the_time_limit(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(default_walltime="10m")
    attempt = hang(bench)
    cluster.expire(job_of(cluster))
    outcome = bench.finished(attempt).outcome
    assert outcome.cause is Cause.TIMEOUT
    assert re.fullmatch(
        r"job \d+_0 was ended at its time limit; ask for more with hsm.resources.walltime or "
        r"default_walltime: '00:20:00' \(it had 00:10:00\).*",
        outcome.message,
    )
    assert outcome.output_dir is not None
    bench.assert_ended(0, "pid")


def test_somebody_cancels_a_job(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench()
    attempt = hang(bench)
    cluster.run("scancel", job_of(cluster))
    outcome = bench.finished(attempt).outcome
    assert (outcome.cause, "was cancelled in the scheduler" in outcome.message) == (Cause.CANCELLED, True)
    bench.assert_ended(0, "pid")


def test_a_task_that_is_cancelled_hears_it_first(make_bench: MakeBench) -> None:
    """The scheduler signals one process after the other; here the task's comes before that which watches over it."""
    bench = make_bench()
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    started = bench.started(attempt)
    bench.wait_for_file(bench.output(0, "hanging"))
    assert started.pid is not None
    bench.source.cancel([attempt])
    os.kill(started.pid, signal.SIGTERM)
    outcome = bench.finished(attempt).outcome
    assert (outcome.cause, outcome.message) == (Cause.CANCELLED, "ended before it was done")


def test_somebody_cancels_a_job_that_has_not_started(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(default_resources="cpus_per_task=4:nodes=4:exclusive=true")
    running = hang(bench)
    waiting = bench.attempt(1, "do=return")
    bench.source.submit([waiting])
    wait_until(lambda: "PENDING" in cluster.jobs().values(), "the second job")
    (job,) = [name for name, state in cluster.jobs().items() if state == "PENDING"]
    note = bench.wait(lambda event: isinstance(event, Note))
    assert isinstance(note, Note)
    assert note.message == "pending in the scheduler: 1 job: waits for free nodes"
    cluster.run("scancel", job)
    outcome = bench.finished(waiting).outcome
    assert (outcome.cause, outcome.message.startswith(f"job {job} was cancelled in the scheduler")) == (
        Cause.CANCELLED,
        True,
    )
    bench.source.cancel([running])
    assert bench.finished(running).outcome.message == "ended before it was done"


@pytest.mark.parametrize("count", [2, 4])
def test_somebody_cancels_a_job_of_an_array_that_runs(make_bench: MakeBench, cluster: SlurmCluster, count: int) -> None:
    """Slurm forgets it at once; that it is not lost is seen by the others, or by the end of the array."""
    bench = make_bench(default_resources="cpus_per_task=4:nodes=4:exclusive=true")
    attempts = [bench.attempt(index, "do=hang", "stubborn=false") for index in range(count)]
    bench.source.submit(attempts)
    bench.started(attempts[0])
    waiting = sorted(name for name, state in cluster.jobs().items() if state == "PENDING")
    cluster.run("scancel", waiting[-1])
    ended = bench.wait(lambda event: isinstance(event, AttemptFinished))
    assert isinstance(ended, AttemptFinished)
    assert ended.task == count - 1
    assert ended.outcome.cause is Cause.CANCELLED
    words = rf"job {waiting[-1]} was cancelled in the scheduler( \(by 0\))?"
    assert re.fullmatch(words, ended.outcome.message), ended.outcome
    bench.source.cancel(attempts)
    assert {bench.ended(attempt).outcome.message for attempt in attempts[:-1]} == {"ended before it was done"}


def test_a_node_that_is_taken_down(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench()
    attempt = hang(bench)
    node = node_of(cluster)
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    outcome = bench.finished(attempt).outcome
    assert outcome.cause is Cause.LOST
    assert re.match(rf"the node of job \d+_0 failed \({node}\)|.*node", outcome.message), outcome.message
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    bench.assert_ended(0, "pid")
    assert bench.run(0, "do=return", "value=2", number=2).outcome.return_value == 2


def test_preempted_by_a_job_of_higher_priority(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(queue="low", default_resources="nodes=4:exclusive=true")
    attempt = hang(bench)
    job = cluster.submit("true", "--partition=high", "--nodes=4", "--exclusive")
    outcome = bench.finished(attempt).outcome
    assert (outcome.cause, "was preempted" in outcome.message) == (Cause.PREEMPTED, True)
    cluster.wait_for(job, "COMPLETED")
    assert bench.run(0, "do=return", number=2).outcome.completed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"queue": "nope"}, "cluster: sbatch: .*[Ii]nvalid partition"),
        ({"default_resources": "mem=900GB"}, "cluster: sbatch: .*[Mm]emory|cluster: sbatch: .*node"),
    ],
)
def test_refused(make_bench: MakeBench, settings: dict[str, str], words: str) -> None:
    bench = make_bench(**settings)
    outcome = bench.run(0, "do=return").outcome
    assert outcome.cause is Cause.REJECTED
    assert re.match(words, outcome.message), outcome.message
    assert not list((bench.directory / ".hsm" / "hpc" / "cluster").iterdir())


def test_secrets_are_in_no_file_that_others_read(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-of-the-launcher")
    bench = make_bench(env={"pass": ["TOKEN", "NOT_SET"], "set": {"OTHER": "s3cret-of-the-file"}})
    note = bench.wait(lambda event: isinstance(event, Note))
    assert isinstance(note, Note)
    assert note.message == "env.pass names NOT_SET, which is not set here: tasks there run without it"
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    started = bench.started(attempt)
    told = Path(f"/proc/{started.pid}/environ").read_bytes().split(b"\0")
    assert {b"TOKEN=s3cret-of-the-launcher", b"OTHER=s3cret-of-the-file"} <= set(told)
    found = [path for path in bench.directory.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert [path.name for path in found] == ["batch.json"]
    assert found[0].stat().st_mode & 0o077 == 0
    bench.source.cancel([attempt])
    bench.finished(attempt)
    assert not found[0].exists()


def test_a_job_that_would_wait_for_ever(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HOPE", 1.0)
    bench = make_bench(default_resources="nodes=100")
    outcome = bench.run(0, "do=return").outcome
    assert outcome.cause is Cause.REJECTED
    assert re.match(r"job \d+_0 will n\w+ start: .* \(\w+\)$", outcome.message), outcome.message


def test_a_job_that_can_not_begin(make_bench: MakeBench) -> None:
    bench = make_bench(module_commands=['export FROM_MODULE="it\'s"'], setup=['test -n "$FROM_MODULE"', "cat /none"])
    outcome = bench.run(0, "do=return").outcome
    assert outcome.cause is Cause.LOST
    words = r"job \d+_0 ended with exit code 1 and left no result; it said: the command 'cat /none' of setup failed"
    assert re.fullmatch(words, outcome.message), outcome


def test_the_controller_is_away_for_a_while(
    make_bench: MakeBench, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 3.0)
    bench = make_bench()
    attempt = hang(bench)
    cluster.stop_controller()
    bench.wait(lambda event: isinstance(event, SourceDown))
    assert alive(int(bench.output(0, "pid").read_text()))
    late = bench.attempt(1, "do=return", "value=3")
    bench.source.submit([late])
    cluster.start_controller()
    bench.wait(lambda event: isinstance(event, SourceUp))
    assert bench.ended(late).outcome.return_value == 3
    bench.source.cancel([attempt])
    assert bench.finished(attempt).outcome.cause is Cause.CANCELLED


def test_a_submission_without_an_answer_is_not_made_twice(
    make_bench: MakeBench, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch is killed while the controller has its request: the job comes, and is found by its name."""
    monkeypatch.setattr(scheduler, "PATIENCE", 2.0)
    bench = make_bench()
    attempt = bench.attempt(0, "do=return", "value=5")
    before = set(cluster.jobs())
    with cluster.freeze_controller():
        bench.source.submit([attempt])
        bench.wait(lambda event: isinstance(event, SourceDown))
    bench.source.attach([attempt])
    assert bench.finished(attempt).outcome.return_value in (5, None)
    ran = [event for event in bench.seen if isinstance(event, AttemptFinished)]
    assert len(ran) == 1
    assert len(set(cluster.jobs()) - before) <= 1


def test_what_an_earlier_launcher_submitted_is_taken_over(make_bench: MakeBench, cluster: SlurmCluster) -> None:
    bench = make_bench(slots=3, default_resources="nodes=4:exclusive=true")
    attempts = [bench.attempt(i, "do=hang" if i == 0 else "do=return", "stubborn=false") for i in range(3)]
    bench.source.submit(attempts)
    bench.started(attempts[0])
    wait_until(lambda: len(cluster.jobs()) >= 3, "three jobs")
    bench.source.leave()
    later = Bench.__new__(Bench)
    later.__dict__.update(bench.__dict__)
    later.source = HpcSource("cluster", bench.source.config, 3)
    later.source.start(bench.context(2), later.events.put)
    later.source.attach(attempts)
    started = later.started(attempts[0])
    assert started.pid == int(bench.output(0, "pid").read_text())
    later.source.cancel([attempts[0]])
    assert later.ended(attempts[0]).outcome.cause is Cause.CANCELLED
    assert [later.ended(attempt).outcome.completed for attempt in attempts[1:]] == [True, True]
    later.source.stop(20.0)
