"""Hydra's own compliance suite for launchers, its tasks on a real Slurm, with accounting and without."""

from __future__ import annotations

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from hsm_core.sources.hpc import allowance
from tests.testbed.slurm import SlurmCluster
from tests.testbed.slurm_fixtures import slurm, slurm_accounting, slurm_programs

__all__ = ["slurm", "slurm_accounting", "slurm_programs"]


@pytest.fixture
def launcher_name() -> str:
    return "hsm"


@pytest.fixture(params=["slurm", "slurm_accounting"])
def overrides(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    cluster: SlurmCluster = request.getfixturevalue(request.param)
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(allowance, "EVERY", 0.3)
    return ["+hydra.launcher.compute_sources={cluster:{type:hpc,system:slurm,max_parallel_tasks:8}}"]


class TestOnSlurm(LauncherTestSuite):
    """The suite with the basic sweeper."""


class TestOnSlurmBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""

    @pytest.fixture
    def overrides(self, overrides: list[str]) -> list[str]:
        return [*overrides, "hydra.sweeper.max_batch_size=2"]
