"""Hydra's own compliance suite for launchers, its tasks on a host that is reached by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from tests.testbed.environment import make_environment
from tests.testbed.fixtures import client_key
from tests.testbed.sshd import ClientKey, SshHome, SshHost

__all__ = ["client_key"]


@pytest.fixture(scope="module")
def host(client_key: ClientKey) -> Iterator[SshHost]:
    """One host for all tests."""
    with SshHost(client_key) as made:
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
    home = SshHome(tmp_path / "ssh_home")
    home.trust(host)
    monkeypatch.setenv("HOME", str(home.folder))
    far = f"type:ssh,host:'{host.address}',port:{host.port},user:{host.user},ssh_key:'{host.key.path}',trusted:true"
    return [f"+hydra.launcher.compute_sources={{far:{{{far},python:'{python}',max_parallel_tasks:2}}}}"]


class TestOnSsh(LauncherTestSuite):
    """The suite with the basic sweeper."""


class TestOnSshBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""

    @pytest.fixture
    def overrides(self, overrides: list[str]) -> list[str]:
        return [*overrides, "hydra.sweeper.max_batch_size=2"]
