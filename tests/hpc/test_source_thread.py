"""What an HPC source does when something goes wrong between it and its scheduler, or with the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.events import AttemptFinished, Note, SourceDown, SourceUp
from hsm_core.exceptions import Unavailable
from hsm_core.sources.hpc import source as sources
from hsm_core.sources.hpc.scheduler import Full, Job
from hsm_core.sources.hpc.site import Site
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.task import Cause
from hsm_core.testing import Bench, alive, wait_until
from tests.hpc.stub_scheduler import StubScheduler
from tests.testbed import schedulers


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubScheduler]:
    schedulers.use({}, monkeypatch)
    made = StubScheduler()
    monkeypatch.setattr(sources, "scheduler_of", lambda *given: made)
    yield made
    made.end()


@pytest.fixture
def bench(scheduler: StubScheduler, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(HpcSource("cluster", SourceConfig(type="hpc"), 4), tmp_path)
    made.start()
    yield made
    made.source.stop(10.0)


def test_a_fault_of_ours_does_not_end_the_source(bench: Bench, scheduler: StubScheduler) -> None:
    def fail() -> None:
        scheduler.on_states = lambda: None
        raise KeyError("1_0")

    scheduler.on_states = fail
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    down = bench.wait(lambda event: isinstance(event, SourceDown))
    assert isinstance(down, SourceDown)
    assert down.reason == ("cluster: a fault of hsm, it goes on after a while: KeyError: '1_0'. Its jobs go on there.")
    assert not down.final
    bench.wait(lambda event: isinstance(event, SourceUp))
    bench.source.cancel([attempt])
    assert bench.ended(attempt).outcome.cause is Cause.CANCELLED


def test_a_fault_while_it_submits_loses_no_attempt(bench: Bench, scheduler: StubScheduler) -> None:
    def fail(job: Job) -> None:
        scheduler.on_submit = lambda job: None
        raise KeyError("partition")

    scheduler.on_submit = fail
    attempt = bench.attempt(0, "do=return", "value=1")
    bench.source.submit([attempt])
    outcome = bench.finished(attempt).outcome
    assert (outcome.cause, outcome.message) == (Cause.LOST, "it was never submitted")
    assert bench.run(0, "do=return", "value=1", number=2).outcome.completed


def test_a_script_that_can_not_be_written_is_written_later(bench: Bench, scheduler: StubScheduler) -> None:
    def fail(job: Job) -> None:
        scheduler.on_submit = lambda job: None
        raise OSError(28, "No space left on device")

    scheduler.on_submit = fail
    assert bench.run(0, "do=return", "value=1").outcome.completed
    assert len(scheduler.jobs) == 1
    assert [type(event) for event in bench.seen if isinstance(event, (SourceDown, SourceUp))] == [SourceDown, SourceUp]


def test_that_no_more_jobs_are_taken_is_told_once(bench: Bench, scheduler: StubScheduler) -> None:
    tries: list[str] = []

    def fail(job: Job) -> None:
        tries.append(job.token)
        if len(tries) < 4:
            raise Full("sbatch: QOSMaxSubmitJobPerUserLimit" if len(tries) < 3 else "sbatch: try again")

    scheduler.on_submit = fail
    assert bench.run(0, "do=return", "value=1").outcome.completed
    notes = [event.message for event in bench.seen if isinstance(event, Note) and "no more jobs" in event.message]
    assert notes == [
        "no more jobs are taken now, 1 wait: sbatch: QOSMaxSubmitJobPerUserLimit",
        "no more jobs are taken now, 1 wait: sbatch: try again",
    ]


def test_nobody_waits_for_a_slow_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, goes_on = threading.Event(), threading.Event()
    news = Site.news

    def slow(site: Site, known: Mapping[str, int]) -> dict[str, list[str]]:
        looks.set()
        goes_on.wait()
        return news(site, known)

    monkeypatch.setattr(Site, "news", slow)
    attempt, other = bench.attempt(0, "do=hang", "stubborn=false"), bench.attempt(1, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    looks.wait()
    bench.source.submit([other])
    bench.source.cancel([other])
    assert bench.finished(other).outcome.message == "ended before it was submitted"
    bench.source.cancel([attempt])
    goes_on.set()
    assert bench.ended(attempt).outcome.cause is Cause.CANCELLED
    assert sum(isinstance(event, AttemptFinished) for event in bench.seen) == 2


def test_a_command_ends_with_all_it_started(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^cluster: sh did not end within 0.5 s$"):
        bench.source.run_command(["sh", "-c", f"sleep 600 & echo $! >'{tmp_path}/pid'; wait"], timeout=0.5)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(pid), "what it started to end")
