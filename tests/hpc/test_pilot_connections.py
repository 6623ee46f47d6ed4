"""Between a launcher and its pilots on a real Slurm: connections break, or never come about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.events import Note, SourceDown, SourceUp
from hsm_core.sources.hpc import pilot_agent
from hsm_core.sources.hpc.pilot_agent import PilotAgent
from hsm_core.sources.hpc.pilot_jobs import Address, PilotJobs
from hsm_core.sources.hpc.pilots import FAILURES, PilotSource
from hsm_core.sources.remote_line import RemoteLine
from hsm_core.task import Cause
from hsm_core.testing import Bench, wait_until
from tests.testbed import schedulers
from tests.testbed.slurm import SlurmCluster


@pytest.fixture
def bench(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    schedulers.use(slurm.environ, monkeypatch)
    config = SourceConfig(type="hpc", mode="pilot", default_resources="mem=1500MB")
    made = Bench(PilotSource("cluster", config, 2), tmp_path)
    made.start()
    yield made
    made.source.stop(10.0)
    slurm.clear()


def agent(bench: Bench) -> PilotAgent:
    assert isinstance(bench.source, PilotSource)
    (pilot,) = bench.source._pilots.values()
    assert pilot.agent is not None
    return pilot.agent


def test_tasks_do_not_notice_that_a_connection_breaks(bench: Bench) -> None:
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    bench.started(attempt)
    line = agent(bench)._line
    assert isinstance(line, RemoteLine)
    assert line._program is not None
    line._program.close()
    down = bench.wait(lambda event: isinstance(event, SourceDown))
    assert isinstance(down, SourceDown)
    assert (down.final, "Its tasks go on there" in down.reason) == (False, True)
    bench.wait(lambda event: isinstance(event, SourceUp))
    assert bench.run(1, "do=return", "value=3").outcome.return_value == 3
    bench.source.cancel([attempt])
    assert bench.finished(attempt).outcome.cause is Cause.CANCELLED


def test_pilots_that_nothing_leads_to(bench: Bench, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall: it is said what is tried, and after a few of them no more are called for."""
    monkeypatch.setattr(pilot_agent, "PAUSE", 0.01)
    monkeypatch.setattr(PilotJobs, "address", lambda self, pilot: Address(["127.0.0.1"], 1, "secret"))
    attempt = bench.attempt(0, "do=return")
    bench.source.submit([attempt])
    outcome = bench.finished(attempt).outcome
    assert outcome.cause is Cause.LOST
    assert "its pilots are of no use: 127.0.0.1, port 1: Connection refused" in outcome.message
    notes = [event.message for event in bench.seen if isinstance(event, Note) and event.level == "WARNING"]
    assert notes == ["a pilot can't be used: 127.0.0.1, port 1: Connection refused"] * FAILURES
    assert any(isinstance(event, SourceDown) and event.final for event in bench.seen)
    wait_until(lambda: slurm.run("squeue", "-h") == "", "the pilots to end")
