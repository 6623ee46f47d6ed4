"""How often a scheduler is called: by what the rules say, and by counting the calls of Slurm's programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.events import AttemptFinished
from hsm_core.sources.hpc import allowance
from hsm_core.sources.hpc.allowance import BURST, EVERY, HOLD, Allowance, due
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import Bench
from tests.faults.conftest import Sweep
from tests.testbed import schedulers
from tests.testbed.call_log import CallLog
from tests.testbed.slurm import SlurmCluster

LONG = 2 * allowance.LONGEST


@pytest.mark.parametrize(
    ("waiting", "most", "pending", "quiet", "held", "goes"),
    [
        (0, 100, 0, 99.0, 99.0, False),
        (1, 100, 0, LONG, LONG, True),  # the cluster may have nothing else to do
        (1, 100, 0, 0.0, 0.0, False),  # others may be on their way
        (50, 100, 0, 0.0, LONG, True),
        (100, 100, 5000, 0.0, 0.0, True),  # a full one
        (1, 100, 2, LONG, LONG, False),  # what pends keeps the cluster busy
        (40, 100, 40, LONG, LONG, True),
        (1, 100, 2, LONG, HOLD, True),  # its age in the queue counts too
    ],
)
def test_when_a_batch_goes_out(waiting: int, most: int, pending: int, quiet: float, held: float, goes: bool) -> None:
    assert due(waiting, most, pending, quiet, held) is goes


def test_calls_are_counted_however_many_a_question_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [1000.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    allowed = Allowance(lambda: calls[0])
    assert allowed.free(BURST)
    calls[0] = 4  # squeue, sacct, and others
    assert not allowed.free()
    now[0] += 2.9 * EVERY
    assert not allowed.free()
    now[0] += 0.2 * EVERY
    assert allowed.free()
    now[0] += 100 * EVERY
    assert not allowed.free(BURST + 1)


@pytest.fixture(scope="module")
def narrow(slurm_programs: None) -> Iterator[SlurmCluster]:
    """A cluster whose arrays have 20 elements at most."""
    with SlurmCluster({"MaxArraySize": "21"}) as cluster:
        yield cluster


def test_tasks_that_come_one_by_one_go_out_together(
    narrow: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine does, a new attempt for each that ends: submissions are nearly full arrays all the same."""
    log = CallLog(tmp_path / "log", narrow.environ)
    schedulers.use(log.environ, monkeypatch)
    bench = Bench(HpcSource("cluster", SourceConfig(type="hpc"), 60), tmp_path / "bench")
    bench.start()
    attempts = [bench.attempt(index, "do=return") for index in range(160)]
    bench.source.submit(attempts[:60])
    for attempt in attempts[60:]:
        bench.wait(lambda event: isinstance(event, AttemptFinished))
        bench.source.submit([attempt])
    for _ in range(60):
        bench.wait(lambda event: isinstance(event, AttemptFinished))
    assert log.counts()["sbatch"] <= 160 // 20 + 2, log.counts()
    bench.source.stop(10.0)


class CountedSweep(Sweep):
    """A sweep whose only source is a cluster that counts its calls."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "hsm_config.yaml").write_text("compute_sources: {cluster: {type: hpc, system: slurm}}\n")


def test_calls_are_few_however_many_tasks_there_are(
    narrow: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CallLog(tmp_path / "log", narrow.environ)
    for name, value in log.environ.items():
        monkeypatch.setenv(name, value)
    sweep = CountedSweep(tmp_path)
    began = time.monotonic()
    assert sweep.launch("+x=range(100)").wait(180) == 0, sweep.said()
    elapsed = time.monotonic() - began
    counts = log.counts()
    assert len(sweep.finished()) == 100
    assert counts["sbatch"] <= 100 // 20 + 2, counts
    assert counts["scontrol"] == 1  # for what the cluster allows
    assert counts.total() - counts["scontrol"] <= 2 + elapsed / 5, (counts, elapsed)
