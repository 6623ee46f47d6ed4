"""Processes between launcher and task are killed, one at a time: the task runs once more, and no other is touched."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from hsm_core.task import Cause, TaskState
from hsm_core.testing import alive, wait_until
from tests.faults.conftest import Sweep

SPOILER = """
import os, sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    Path(HydraConfig.get().runtime.output_dir, "result.txt").write_text("done")
    name = "{HSM_TASK}.{HSM_ATTEMPT}.1".format(**os.environ)
    record = Path(os.environ["HSM_SWEEP_DIR"], ".hsm", "results", name)
    if cfg.do == "kill":
        os.kill(os.getpid(), 9)
    if cfg.do == "folder":
        Path(f"{record}.json").mkdir()
    if cfg.do == "pipe":
        os.mkfifo(Path(f"{record}.json.tmp"))
    if cfg.do == "link":
        Path(f"{record}.json.tmp").symlink_to(Path("elsewhere").absolute())
    if cfg.do == "text":
        Path(f"{record}.json").write_text("no record")
    if cfg.do == "pickle":
        os.mkfifo(Path(f"{record}.pkl"))
        return 1j
    return cfg.do


if __name__ == "__main__":
    main()
"""


def parents(pid: int) -> list[int]:
    """The process's supervisor, zygote and agent."""
    found = [parent.pid for parent in psutil.Process(pid).parents()[:3]]
    assert "agent" in psutil.Process(found[2]).cmdline()
    return found


@pytest.mark.parametrize(
    ("victim", "runs"), [("task", {2: 2, 3: 1}), ("supervisor", {2: 2, 3: 1}), ("zygote", {2: 2, 3: 2})]
)
def test_a_process_is_killed(sweep: Sweep, victim: str, runs: dict[int, int]) -> None:
    launcher = sweep.launch("+x=range(5)", "+gated=2", "hydra.launcher.sources=local:2")
    for index in runs:
        sweep.wait_for(index, "starts")
    task = int(sweep.output(2, "starts").read_text())
    supervisor, zygote, _ = parents(task)
    os.kill({"task": task, "supervisor": supervisor, "zygote": zygote}[victim], signal.SIGKILL)
    wait_until(lambda: len(sweep.output(2, "starts").read_text().split()) == 2, f"task 2 to run again\n{sweep.said()}")
    assert not alive(task)
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    started = {index: len(sweep.output(index, "starts").read_text().split()) for index in range(5)}
    assert started == {0: 1, 1: 1, 4: 1, **runs}
    assert sweep.output(2, "stdout.1.log").exists()
    state = sweep.state()
    assert {index: task.failures.get("lost", 0) for index, task in state.tasks.items()} == {
        index: count - 1 for index, count in started.items()
    }
    assert state.sources["local"].disabled is None
    sweep.audit()


def test_a_task_that_takes_its_worker_down_each_time_is_given_up(sweep: Sweep) -> None:
    (sweep.folder / "app.py").write_text(SPOILER)
    assert sweep.launch("+do=a,kill,b").wait(60) == 1
    state = sweep.state()
    assert [task.state for task in state.tasks.values()] == [
        TaskState.COMPLETED,
        TaskState.FAILED,
        TaskState.COMPLETED,
    ]
    outcome = state.tasks[1].outcome
    assert outcome is not None
    assert outcome.cause is Cause.LOST
    assert "SIGKILL (signal 9); the task took 3 workers down with it, on " in outcome.message
    assert outcome.message.count("(local)") == 3
    assert state.sources["local"].disabled is None
    sweep.audit()


def test_a_task_that_spoils_its_own_record_spoils_no_others(sweep: Sweep) -> None:
    (sweep.folder / "app.py").write_text(SPOILER)
    cases = ("a", "folder", "pipe", "link", "text", "pickle", "b")
    assert sweep.launch(f"+do={','.join(cases)}", "hydra.launcher.retry.lost=1").wait(60) == 1, sweep.said()
    state = sweep.state()
    outcomes = {case: state.tasks[index].outcome for index, case in enumerate(cases)}
    assert {case: outcome and outcome.return_value for case, outcome in outcomes.items()} == {
        **{case: case for case in cases},
        "folder": None,
        "pickle": "<complex>",
    }
    assert outcomes["folder"] is not None
    assert outcomes["folder"].message.startswith("invalid result: it is no regular file")
    assert state.sources["local"].disabled is None
    assert not (sweep.folder / "elsewhere").exists()
    sweep.audit()
