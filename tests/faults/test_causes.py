"""Why attempts fail, each cause for real, and what the sweep's `retry` makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.remote import memory
from hsm_core.task import Cause, TaskState
from tests.faults.conftest import Sweep

APP = """
import os
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    attempts = Path(HydraConfig.get().runtime.output_dir, "attempts")
    with open(attempts, "a") as f:
        f.write("x")
    number = len(attempts.read_text())
    if cfg.do == "eat":
        eaten = [bytearray(b"x" * (8 << 20)) for _ in range(cfg.mib // 8)]
    elif cfg.do == "hang" and number == 1:
        time.sleep(600)
    elif cfg.do == "die" and number == 1:
        os.kill(os.getpid(), 9)
    elif cfg.do == "exit":
        sys.exit(3)
    Path(HydraConfig.get().runtime.output_dir, "result.txt").write_text("done")
    return number


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def hungry(sweep: Sweep) -> Sweep:
    (sweep.folder / "app.py").write_text(APP)
    return sweep


def causes(sweep: Sweep) -> dict[int, tuple[TaskState, dict[str, int]]]:
    return {task.index: (task.state, dict(task.failures)) for task in sweep.state().tasks.values()}


def message(sweep: Sweep, index: int) -> str:
    outcome = sweep.state().tasks[index].outcome
    assert outcome is not None
    return outcome.message


def test_a_task_that_ran_out_of_memory_gets_more(hungry: Sweep) -> None:
    retry = "hydra.launcher.retry.oom={times:3,mem:x2,max:600MB}"
    limit = "hydra.launcher.memory_per_task=200MB"
    assert hungry.launch("+do=eat", "+mib=24,320,2000", limit, retry).wait(60) == 1
    assert causes(hungry) == {
        0: (TaskState.COMPLETED, {}),
        1: (TaskState.COMPLETED, {"oom": 1}),
        2: (TaskState.FAILED, {"oom": 3}),
    }
    last = hungry.state().tasks[2].attempt
    assert last is not None
    assert last.memory == 600
    assert message(hungry, 2).endswith("; it had all that retry.oom allows")
    hungry.audit()


def test_running_out_of_memory_is_not_retried_unasked(hungry: Sweep) -> None:
    assert hungry.launch("+do=eat", "+mib=600", "hydra.launcher.memory_per_task=200MB").wait(60) == 1
    assert causes(hungry) == {0: (TaskState.FAILED, {"oom": 1})}
    assert "give it more with memory_per_task" in message(hungry, 0)
    assert hungry.state().sources["local"].disabled is None
    hungry.audit()


@pytest.fixture
def capped() -> Iterator[Path]:
    """A memory cgroup of 400 MiB, as the machine's owner or a container makes them."""
    made = memory.make(f"hsm-test-{os.getpid()}", 400.0)
    if made is None:
        pytest.skip("needs a memory cgroup: run as root, or in a container or systemd service that may make them")
    yield Path(made.path)
    os.rmdir(made.path)


def test_a_kill_for_want_of_memory_is_told_from_others(hungry: Sweep, capped: Path) -> None:
    command = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(capped)]
    launcher = hungry.launch("+do=eat,die", "+mib=2000", before=command)
    assert launcher.wait(60) == 1
    assert causes(hungry) == {0: (TaskState.FAILED, {"oom": 1}), 1: (TaskState.COMPLETED, {"lost": 1})}
    assert message(hungry, 0).startswith("out of memory (limit 400 MiB, peak ")
    hungry.audit()


def test_each_cause_is_retried_as_often_as_it_says(hungry: Sweep) -> None:
    retry = "hydra.launcher.retry={timeout:1,error:2}"
    assert hungry.launch("+do=hang,die,exit", "hydra.launcher.timeout=3", retry).wait(60) == 1
    assert causes(hungry) == {
        0: (TaskState.COMPLETED, {"timeout": 1}),
        1: (TaskState.COMPLETED, {"lost": 1}),
        2: (TaskState.FAILED, {"error": 3}),
    }
    attempt = hungry.state().tasks[2].attempt
    assert attempt is not None
    assert attempt.outcome is not None
    assert (attempt.outcome.cause, attempt.outcome.exit_code) == (Cause.ERROR, 3)
    hungry.audit()


def test_a_task_without_a_place_for_its_output_does_not_run(hungry: Sweep) -> None:
    """Its output directory is there, but its files can't be made in it; Hydra would only log that."""
    hungry.output(0, "").mkdir(parents=True)
    hungry.output(0, "stdout.log").symlink_to("/nowhere/at/all")
    assert hungry.launch("+do=a,b").wait(60) == 1
    assert causes(hungry) == {0: (TaskState.FAILED, {"lost": 3}), 1: (TaskState.COMPLETED, {})}
    assert message(hungry, 0).startswith("its output files can't be made: No such file or directory: ")
    assert not hungry.output(0, "attempts").exists()
    hungry.audit()
