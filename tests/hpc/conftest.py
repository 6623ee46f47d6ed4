"""What the tests of HPC sources share: real clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import schedulers
from tests.testbed.schedulers import MakeBench
from tests.testbed.slurm import SlurmCluster
from tests.testbed.slurm_fixtures import slurm, slurm_accounting, slurm_programs

__all__ = ["slurm", "slurm_accounting", "slurm_programs"]


@pytest.fixture(params=["without accounting", "with accounting"])
def either_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A cluster that this process talks to, once without accounting and once with it."""
    name = "slurm" if request.param == "without accounting" else "slurm_accounting"
    found: SlurmCluster = request.getfixturevalue(name)
    schedulers.use(found.environ, monkeypatch, grace=1.0)
    yield found
    found.clear()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    """Starts a source with these settings, on the cluster that this process talks to."""
    with schedulers.benches(tmp_path) as make:
        yield make
