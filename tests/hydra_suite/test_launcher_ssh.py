"""Hydra's own compliance suite for launchers, its tasks on a host that is reached by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from tests.hydra_suite.far_host import launcher_name, python, trusted_source
from tests.testbed.fixtures import client_key
from tests.testbed.sshd import ClientKey, SshHost

__all__ = ["client_key", "launcher_name", "python"]


@pytest.fixture(scope="module")
def host(client_key: ClientKey) -> Iterator[SshHost]:
    """One host for all tests."""
    with SshHost(client_key) as made:
        yield made


@pytest.fixture
def overrides(host: SshHost, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return trusted_source("ssh", host, python, 2, tmp_path, monkeypatch)


class TestOnSsh(LauncherTestSuite):
    """The suite with the basic sweeper."""


class TestOnSshBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""

    @pytest.fixture
    def overrides(self, overrides: list[str]) -> list[str]:
        return [*overrides, "hydra.sweeper.max_batch_size=2"]
