"""Tasks of a sweep on PBS: warned before their limit, started again by the server, and running while it is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.events import AttemptStarted, SourceDown, SourceUp
from hsm_core.pbs import text
from hsm_core.remote.batch import find
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.task import Cause
from hsm_core.testing import Bench, alive
from tests.testbed import schedulers
from tests.testbed.pbs.bed import StandIn


@pytest.fixture
def make_bench(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    schedulers.use(stand_in.environ, monkeypatch, grace=1.0)
    made: list[Bench] = []

    def make(**settings: object) -> Bench:
        config = SourceConfig(type="hpc", system="pbs", **settings)  # type: ignore[arg-type]
        made.append(Bench(HpcSource("cluster", config, 2), tmp_path))
        made[-1].start()
        return made[-1]

    yield make
    for bench in made:
        bench.source.stop(10.0)


def test_a_task_that_is_preempted_goes_on_from_its_checkpoint(
    stand_in: StandIn, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench(requeue=True, default_walltime="30s", signal_delay=29)
    attempt = bench.attempt(0, "do=save")
    bench.source.submit([attempt])
    bench.wait_for_file(bench.output(0, "checkpoint"))  # half the limit before it
    (batch,) = find(str(bench.directory / ".hsm" / "hpc" / "cluster"), str(bench.records))
    stand_in.set(preempt=text.element(batch["job"]))
    finished = bench.finished(attempt)
    assert (finished.outcome.completed, finished.outcome.return_value) == (True, "half of it")
    assert bench.output(0, "starts").read_text() == "11"
    assert sum(isinstance(event, AttemptStarted) for event in bench.seen) == 2


def test_a_server_that_is_away_ends_no_task(stand_in: StandIn, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    running, late = bench.attempt(0, "do=hang", "stubborn=false"), bench.attempt(1, "do=return", "value=3")
    bench.source.submit([running])
    bench.started(running)
    stand_in.set(up=False)
    down = bench.wait(lambda event: isinstance(event, SourceDown))
    assert isinstance(down, SourceDown)
    assert (down.final, "The PBS server can't be reached now" in down.reason) == (False, True)
    bench.source.submit([late])
    assert alive(int(bench.output(0, "pid").read_text()))
    stand_in.set(up=True)
    bench.wait(lambda event: isinstance(event, SourceUp))
    assert bench.ended(late).outcome.return_value == 3
    bench.source.cancel([running])
    assert bench.ended(running).outcome.cause is Cause.CANCELLED


def test_a_job_that_somebody_deletes(stand_in: StandIn, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    bench.started(attempt)
    (batch,) = find(str(bench.directory / ".hsm" / "hpc" / "cluster"), str(bench.records))
    assert stand_in.run("qdel", batch["job"]).returncode == 0
    outcome = bench.finished(attempt).outcome
    assert (outcome.cause, "was cancelled in the scheduler" in outcome.message) == (Cause.CANCELLED, True)
