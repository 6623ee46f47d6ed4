"""The conformance suite for sources, on a real Slurm whose login node is reached by SSH and shares no files with us."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core.sources.base import Source
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import SourceSuite
from tests.testbed import login_node
from tests.testbed.fixtures import MakeHost
from tests.testbed.slurm import SlurmCluster
from tests.testbed.sshd import SshHome


class TestSlurmThere(SourceSuite):
    large = 300 << 20

    @pytest.fixture
    def source(
        self,
        slurm: SlurmCluster,
        make_host: MakeHost,
        ssh_home: SshHome,
        far_python: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Source:
        login_node.use(monkeypatch)
        host = make_host(login_node.settings(slurm.environ))
        ssh_home.trust(host)
        config = login_node.config(host, python=str(far_python), trusted=True, default_resources="mem=1500MB")
        return HpcSource("cluster", config, slots=2)
