"""`isolation: reuse`: tasks that complete leave their process to later ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_core.remote import marks

if TYPE_CHECKING:
    from tests.integration.conftest import App

BODY = """
import atexit
import logging
import os
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

seen = []


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    folder = HydraConfig.get().runtime.output_dir
    if not seen:
        atexit.register(lambda: Path("exits").open("a").write(f"{os.getpid()}\\n"))
    seen.append(HydraConfig.get().job.num)
    print("number", seen[-1], os.getpid(), os.environ["HSM_TASK"])
    logging.getLogger("app").info("logged by %s", seen[-1])
    if cfg.get("bad") == cfg.lr:
        raise ValueError("bad point")
    if cfg.get("gone") == cfg.lr:
        os._exit(3)
    if cfg.get("left") == cfg.lr:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    return [os.getpid(), len(seen), Path(folder).name]


if __name__ == "__main__":
    main()
"""
REUSE = ("hydra.launcher.isolation=reuse", "hydra.launcher.sources=local:1")


def values(app: App, *overrides: str, code: int = 0) -> list[list[object]]:
    sweep = app.sweep(*REUSE, *overrides, code=code)
    outcomes = [sweep.outcome(number) for number in sorted(sweep.state.tasks)]
    return [outcome.return_value if outcome.completed else [] for outcome in outcomes]


@pytest.mark.parametrize("worker", ["fork", "spawn"])
def test_tasks_share_a_process(app: App, worker: str) -> None:
    app.write("train.py", BODY)
    sweep = app.sweep(*REUSE, f"hydra.launcher.worker={worker}", "lr=1,2,3")
    told = [sweep.outcome(number).return_value for number in range(3)]
    assert [value[1:] for value in told] == [[1, "0"], [2, "1"], [3, "2"]]
    assert len({value[0] for value in told}) == 1
    pid = told[0][0]
    assert [sweep.text(number).splitlines()[0] for number in range(3)] == [
        f"number {number} {pid} task_00{number + 1}" for number in range(3)
    ]
    for number in range(3):
        assert sweep.text(number, "train.log").count("logged by") == 1
        assert f"lr: {number + 1}" in sweep.text(number, ".hydra/config.yaml")
        assert sweep.record(number)["exit_code"] is None
        assert sweep.record(number)["peak_memory"] > 1
    assert (app.folder / "exits").read_text().split() == [str(pid)], "its exit handlers ran, once"


def test_a_task_that_fails_is_the_last_of_its_process(app: App) -> None:
    app.write("train.py", BODY)
    first, second, failed, third, gone, fourth = values(app, "lr=1,2,3,4,5,6", "+bad=3", "+gone=5", code=1)
    assert failed == gone == []
    assert first[0] == second[0] != third[0] != fourth[0]
    assert [value[1] for value in (first, second, third, fourth)] == [1, 2, 1, 1]


def test_what_has_a_memory_limit_is_not_reused(app: App) -> None:
    app.write("train.py", BODY)
    told = values(app, "lr=1,2", "hydra.launcher.memory_per_task=2GB")
    assert [value[1] for value in told] == [1, 1]


def test_processes_left_behind_end_with_the_sweep(app: App) -> None:
    app.write("train.py", BODY)
    sweep = app.sweep(*REUSE, "lr=1,2", "+left=1")
    assert marks.marked(f"{sweep.directory}:") == []
