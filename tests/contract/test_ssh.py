"""The conformance suite for sources, on a host that is reached by SSH and shares no files with us."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core.sources.base import Source
from hsm_core.sources.ssh.source import SshSource
from hsm_core.testing import SourceSuite
from tests.testbed.sshd import SshHost


class TestSshFork(SourceSuite):
    large = 300 << 20

    @pytest.fixture
    def source(self, ssh_host: SshHost, far_python: Path) -> Source:
        return SshSource("far", ssh_host.config(python=str(far_python), trusted=True), slots=2)
