"""Hydra's own compliance suite for launchers, its tasks on a real Slurm whose login node is reached by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from tests.hydra_suite.far_host import launcher_name, python, trusted_source
from tests.testbed import login_node
from tests.testbed.fixtures import client_key
from tests.testbed.slurm import SlurmCluster
from tests.testbed.slurm_fixtures import slurm, slurm_programs
from tests.testbed.sshd import ClientKey, SshHost

__all__ = ["client_key", "launcher_name", "python", "slurm", "slurm_programs"]


@pytest.fixture(scope="module")
def host(client_key: ClientKey, slurm: SlurmCluster) -> Iterator[SshHost]:
    """One login node for all tests."""
    with SshHost(client_key, login_node.settings(slurm.environ)) as made:
        yield made


@pytest.fixture
def overrides(host: SshHost, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    login_node.use(monkeypatch)
    return trusted_source("hpc", host, python, 8, tmp_path, monkeypatch)


class TestOnSlurmThere(LauncherTestSuite):
    """The suite with the basic sweeper."""


class TestOnSlurmThereBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""

    @pytest.fixture
    def overrides(self, overrides: list[str]) -> list[str]:
        return [*overrides, "hydra.sweeper.max_batch_size=2"]
