"""The conformance suite for sources, on a real Slurm without accounting, and on one with it."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Source
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import SourceSuite
from tests.testbed import schedulers
from tests.testbed.slurm import SlurmCluster


class TestSlurm(SourceSuite):
    @pytest.fixture
    def source(self, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Source:
        schedulers.use(slurm.environ, monkeypatch)
        return HpcSource("cluster", SourceConfig(type="hpc", default_resources="mem=1500MB"), slots=2)


class TestSlurmWithAccounting(SourceSuite):
    @pytest.fixture
    def source(self, slurm_accounting: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Source:
        schedulers.use(slurm_accounting.environ, monkeypatch)
        return HpcSource("cluster", SourceConfig(type="hpc", default_resources="mem=1500MB"), slots=2)
