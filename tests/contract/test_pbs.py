"""The conformance suite for sources, on PBS: the site's own where its commands are on PATH, else a stand-in."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Source
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import SourceSuite
from tests.testbed import schedulers
from tests.testbed.pbs.bed import Bed, pbs

__all__ = ["pbs"]


class TestPbs(SourceSuite):
    @pytest.fixture
    def source(self, pbs: Bed, monkeypatch: pytest.MonkeyPatch) -> Source:
        schedulers.use(pbs.environ, monkeypatch)
        return HpcSource("cluster", SourceConfig(type="hpc", system="pbs"), slots=2)
