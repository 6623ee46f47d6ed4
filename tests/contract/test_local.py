"""The conformance suite for sources, on local ones."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Source
from hsm_core.sources.local import LocalSource
from hsm_core.testing import SourceSuite


class TestLocalFork(SourceSuite):
    @pytest.fixture
    def source(self) -> Source:
        return LocalSource("local", SourceConfig(type="local", worker="fork"), slots=2)


class TestLocalSpawn(SourceSuite):
    @pytest.fixture
    def source(self) -> Source:
        return LocalSource("local", SourceConfig(type="local", worker="spawn"), slots=2)


class TestLocalReuse(SourceSuite):
    @pytest.fixture
    def source(self) -> Source:
        return LocalSource("local", SourceConfig(type="local", isolation="reuse"), slots=2)
