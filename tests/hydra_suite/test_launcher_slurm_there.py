"""Hydra's own compliance suite for launchers, its tasks on a real Slurm whose login node is reached by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from tests.testbed import login_node
from tests.testbed.environment import make_environment
from tests.testbed.fixtures import client_key
from tests.testbed.slurm import SlurmCluster
from tests.testbed.slurm_fixtures import slurm, slurm_programs
from tests.testbed.sshd import ClientKey, SshHome, SshHost

__all__ = ["client_key", "slurm", "slurm_programs"]


@pytest.fixture(scope="module")
def host(client_key: ClientKey, slurm: SlurmCluster) -> Iterator[SshHost]:
    """One login node for all tests."""
    with SshHost(client_key, login_node.settings(slurm.environ)) as made:
        yield made


@pytest.fixture(scope="module")
def python(host: SshHost) -> Path:
    """An interpreter there, with what the suite's own task functions need."""
    return make_environment(host.folder / "environment", "cloudpickle", "pytest")


@pytest.fixture
def launcher_name() -> str:
    return "hsm"


@pytest.fixture
def overrides(host: SshHost, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    login_node.use(monkeypatch)
    home = SshHome(tmp_path / "ssh_home")
    home.trust(host)
    monkeypatch.setenv("HOME", str(home.folder))
    far = f"type:hpc,host:'{host.address}',port:{host.port},user:{host.user},ssh_key:'{host.key.path}',trusted:true"
    return [f"+hydra.launcher.compute_sources={{far:{{{far},python:'{python}',max_parallel_tasks:8}}}}"]


class TestOnSlurmThere(LauncherTestSuite):
    """The suite with the basic sweeper."""


class TestOnSlurmThereBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""

    @pytest.fixture
    def overrides(self, overrides: list[str]) -> list[str]:
        return [*overrides, "hydra.sweeper.max_batch_size=2"]
