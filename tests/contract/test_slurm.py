"""The conformance suite for sources, on a real Slurm."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Source
from hsm_core.sources.hpc import allowance, watch
from hsm_core.sources.hpc import source as source_module
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import SourceSuite
from tests.testbed.slurm import SlurmCluster


class TestSlurm(SourceSuite):
    @pytest.fixture
    def source(self, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Source:
        for name, value in slurm.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(allowance, "EVERY", 0.3)
        monkeypatch.setattr(watch, "GRACE", 0.5)
        monkeypatch.setattr(source_module, "POLL", 0.5)
        monkeypatch.setattr(source_module, "GATHER", 0.05)
        monkeypatch.setattr(source_module, "TICK", 0.05)
        return HpcSource("cluster", SourceConfig(type="hpc", default_resources="mem=1500MB"), slots=2)
