"""The conformance suite for sources, on pilots of a real Slurm."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Source
from hsm_core.sources.hpc.pilots import PilotSource
from hsm_core.testing import SourceSuite
from tests.testbed import schedulers
from tests.testbed.slurm import SlurmCluster


class TestSlurmPilots(SourceSuite):
    @pytest.fixture
    def source(self, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Source:
        schedulers.use(slurm.environ, monkeypatch)
        return PilotSource("cluster", SourceConfig(type="hpc", mode="pilot", default_resources="mem=1500MB"), slots=2)
