"""`hsm sources test` of a cluster, on a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hsm_core.cli import hsm
from hsm_core.sources.hpc import scheduler
from tests.testbed.slurm import SlurmCluster


@pytest.fixture
def cluster(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    for name, value in slurm.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hsm_config.yaml").write_text("compute_sources:\n  cluster: {type: hpc, system: slurm}\n")
    return slurm


def test_a_cluster_that_answers(cluster: SlurmCluster) -> None:
    result = CliRunner().invoke(hsm, ["sources", "test", "cluster"])
    assert result.exit_code == 0, result.output
    assert "scheduler" in result.stdout
    assert "Slurm 2" in result.stdout
    assert "without accounting" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("cluster  can be used (")


def test_a_cluster_that_cannot_be_asked(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 1.0)
    monkeypatch.setenv("SLURM_CONF", "/none/slurm.conf")
    result = CliRunner().invoke(hsm, ["sources", "test", "cluster"])
    assert result.exit_code == 1
    assert "scontrol: no answer within 1 s" in result.stdout
