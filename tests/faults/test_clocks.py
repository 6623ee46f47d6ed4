"""Clocks that are wrong, and clocks that are set while a sweep runs: only what is shown as a time of day changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hsm_core.registry import find
from hsm_core.task import TaskState
from hsm_core.testing import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

APP = """
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    config = HydraConfig.get()
    out = Path(config.runtime.output_dir)
    (out / "starts").touch()
    while cfg.x >= cfg.get("gated", 10**9) and not (Path(config.runtime.cwd) / "gate").exists():
        time.sleep(0.02)
    (out / "result.txt").write_text(str(time.time()))
    return cfg.x


if __name__ == "__main__":
    main()
"""
DAY = 86400.0
# libfaketime 0.9.10 gets the absolute sleeps of Python 3.11 wrong when the monotonic clock is left alone.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"


class Clock:
    """The wall clock of every process with `environment`; the monotonic one goes on as ever."""

    def __init__(self, folder: Path, library: str) -> None:
        self._file = folder / "clock"
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SLEEP)
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(site),
        }
        self.set(0.0)

    def set(self, seconds: float) -> None:
        """Show so many seconds more than it is."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.rename(self._file)

    @property
    def command(self) -> list[str]:
        """In front of a command line: it and all that it starts have this clock."""
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    try:
        told = subprocess.run(
            ["faketime", "-f", "+0", "sh", "-c", 'echo "$LD_PRELOAD"'], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("needs faketime, to set a clock that nobody else sees: apt-get install faketime")
    return Clock(tmp_path, told.stdout.strip())


@pytest.fixture
def timed(sweep: Sweep) -> Sweep:
    (sweep.folder / "app.py").write_text(APP)
    return sweep


def stamps(sweep: Sweep) -> list[float]:
    lines = (sweep.directory / ".hsm" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    return [json.loads(line)["t"] for line in lines]


def numbers(value: Any) -> list[float]:
    """All numbers in a report."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [float(value)] if isinstance(value, (int, float)) else []


def hsm(sweep: Sweep, clock: Clock, *words: str) -> str:
    """What a command says under this clock."""
    command = [*clock.command, sys.executable, "-m", "hsm_core", *words]
    return subprocess.run(command, cwd=sweep.folder, capture_output=True, text=True, check=True).stdout


def check(sweep: Sweep, clock: Clock, tasks: int) -> None:
    """All tasks completed at once, and no view knows of a negative or a very long time."""
    state = sweep.state()
    assert state.counts[TaskState.COMPLETED] == tasks
    for task in state.tasks.values():
        assert set(task.failures) <= {"cancelled"}, "which is what a killed launcher leaves"
        assert task.outcome is not None
        assert task.outcome.duration is not None
        assert 0 < task.outcome.duration < 120
    figures = json.loads(hsm(sweep, clock, "monitor", "watch", str(sweep.directory), "--once", "--json"))
    rows = json.loads(hsm(sweep, clock, "results", str(sweep.directory), "--json"))
    report = yaml.safe_load((sweep.directory / "reports" / "performance_analysis.yaml").read_text())
    for view in (figures, rows, report):
        assert all(0 <= number < 1000 for number in numbers(view)), view
    assert 0 < report["sources"]["local"]["utilisation"] <= 1
    page = (sweep.directory / "reports" / "source_utilization.html").read_text()
    assert not re.search(r"-\d+(\.\d+)?[smhd%]", page)
    assert "-" not in "".join(re.findall(r"~(.*) remaining", sweep.said()))
    sweep.audit()


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_the_clock_of_the_tasks_is_a_day_off(timed: Sweep, clock: Clock, skew: float) -> None:
    clock.set(skew)
    config = {"type": "local", "max_parallel_tasks": 2, "env": {"set": clock.environment}}
    (timed.folder / "hsm_config.yaml").write_text(yaml.safe_dump({"compute_sources": {"local": config}}))
    assert timed.launch("+x=range(4)", "hydra.launcher.timeout=600").wait(60) == 0, timed.said()
    seen = float(timed.output(0, "result.txt").read_text())
    assert abs(seen - time.time() - skew) < DAY / 2, "the tasks did see another time"
    assert all(abs(stamp - time.time()) < DAY / 2 for stamp in stamps(timed))
    clock.set(0.0)
    check(timed, clock, 4)


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_the_launchers_clock_is_set_while_tasks_run(timed: Sweep, clock: Clock, jump: float) -> None:
    launcher = timed.launch("+x=range(6)", "+gated=2", "hydra.launcher.timeout=600", before=clock.command)
    timed.wait_for(2, "starts")
    timed.wait_for(3, "starts")
    wait_until(lambda: len(timed.state().tasks) == 6, "all tasks to be known")
    clock.set(jump)
    timed.open_gate()
    assert launcher.wait(60) == 0, timed.said()
    times = stamps(timed)
    assert abs(times[-1] - times[0]) > DAY / 2, "the launcher did see another time"
    assert (times[-1] > times[0]) == (jump > 0)
    if jump < 0:
        check(timed, clock, 6)
    else:
        # How long the clock was wrong can't be told from how long nothing happened, so times are a day too long.
        assert timed.state().counts[TaskState.COMPLETED] == 6
        timed.audit()


def test_a_sweep_is_completed_on_the_day_before_it_was_begun(timed: Sweep, clock: Clock) -> None:
    timed.launch("+x=range(6)", "+gated=2", before=clock.command)
    timed.wait_for(2, "starts")
    timed.kill()
    timed.wait_for_peace()
    clock.set(-DAY)
    timed.open_gate()
    assert timed.complete(before=clock.command).wait(60) == 0, timed.said()
    assert timed.complete(before=clock.command).wait(60) == 0, timed.said()
    check(timed, clock, 6)


def test_the_latest_sweep_is_the_one_that_was_started_last(timed: Sweep, clock: Clock) -> None:
    ids = []
    for offset in (0.0, -DAY):
        clock.set(offset)
        timed.directory = timed.folder / f"sweep{offset:.0f}"
        assert timed.launch("+x=1", before=clock.command).wait(60) == 0, timed.said()
        ids.append(timed.state().id)
    assert ids[0] > ids[1]
    assert find(os.fspath(timed.directory)).id == ids[1]
    known = json.loads(hsm(timed, clock, "sweeps", "--json"))
    ours = [row["id"] for row in known if row["id"] in ids]
    assert ours == [ids[1], ids[0]]
