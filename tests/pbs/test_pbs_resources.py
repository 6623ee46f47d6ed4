"""What tasks of a sweep ask PBS for, and what its server says that they asked for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.journal import entries
from tests.faults.conftest import Sweep, interruptible, sweep
from tests.testbed.pbs.bed import Bed

__all__ = ["interruptible", "sweep"]

APP = """
import os, subprocess
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    held = b"x" * (cfg.get("eat", 0) << 20)
    command = [cfg.qstat, "-f", os.environ["PBS_JOBID"]]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "job").write_text(told)
    (out / "result.txt").touch()


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def asking(sweep: Sweep, pbs: Bed, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of an app that notes what PBS says of each of its jobs."""
    for name in ("PATH", "HOME"):
        monkeypatch.setenv(name, pbs.environ[name])
    (sweep.folder / "app.py").write_text(APP)
    settings = "compute_sources: {cluster: {type: hpc, system: pbs, default_resources: 'cpus=1'}}\n"
    (sweep.folder / "hsm_config.yaml").write_text(settings)
    return sweep


def launch(asking: Sweep, *overrides: str) -> None:
    launcher = asking.launch(*overrides, f"+qstat='{shutil.which('qstat')}'")
    assert launcher.wait(120) == 0, asking.said()


def asked(asking: Sweep, index: int, *names: str) -> list[str | None]:
    """The resources of these names that PBS says a task's job asked for."""
    told = dict(re.findall(r"Resource_List\.(\w+) = (\S+)", asking.output(index, "job").read_text()))
    return [told.get(name) for name in names]


def folders(asking: Sweep) -> list[Path]:
    return [*(asking.directory / ".hsm" / "hpc" / "cluster").iterdir()]


def test_two_kinds_of_tasks_are_two_arrays(asking: Sweep) -> None:
    launch(asking, "+x=range(2)", "+hsm.resources='mem=150MB','mem=300MB:cpus=2'", "+hsm.walltime=5m")
    found = [asked(asking, index, "mem", "ncpus", "walltime") for index in range(4)]
    assert found == [["150mb", "1", "00:05:00"], ["300mb", "2", "00:05:00"]] * 2
    arrays = [re.match(r"Job Id: (\d+)", asking.output(index, "job").read_text()) for index in range(4)]
    ids = [found and found[1] for found in arrays]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert folders(asking) == []


def test_memory_that_a_task_runs_out_of_is_asked_for_twice(asking: Sweep) -> None:
    growing = "hydra.launcher.retry.oom={times:2,mem:x2,max:1GB}"
    launch(asking, "+eat=0,120", growing, "hydra.launcher.memory_per_task=100MB")
    assert [asked(asking, index, "mem") for index in range(2)] == [["100mb"], ["200mb"]]
    journal = [entry.event for entry in entries(asking.directory / ".hsm" / "journal.jsonl")]
    found = [event for event in journal if isinstance(event, ev.AttemptSubmitted) and event.task == 1]
    assert [(event.memory, event.needs) for event in found] == [(100, None), (200, 200)]
    assert folders(asking) == []
