"""Whole sweeps on PBS: the site's own where its commands are on PATH, else a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core.task import TaskState
from tests.faults.conftest import Sweep
from tests.testbed.pbs.bed import Bed, pbs

__all__ = ["pbs"]


@pytest.mark.parametrize("mode", ["mode: jobs", "mode: pilot, pilots: 2, default_resources: ncpus=2"])
def test_a_sweep(pbs: Bed, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in pbs.environ.items():
        monkeypatch.setenv(name, value)
    sweep = Sweep(tmp_path)
    (tmp_path / "hsm_config.yaml").write_text(f"compute_sources: {{cluster: {{type: hpc, system: pbs, {mode}}}}}\n")
    assert sweep.launch("+x=range(6)", "+bad=2").wait(90) != 0
    states = [task.state for task in sweep.state().tasks.values()]
    assert states == [TaskState.FAILED if index == 2 else TaskState.COMPLETED for index in range(6)], sweep.said()
    assert "bad point 2" in sweep.said()
    assert [sweep.output(index, "result.txt").read_text() for index in (0, 5)] == ["0\n", "5\n"]
    sweep.audit()
