"""How a sweep is gone on with: what will be done, said before, and the command line that does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hsm_core import events as ev
from hsm_core.exceptions import SweepError
from hsm_core.resume import check_app, forecast, plan_words, resume_arguments
from hsm_core.state import CommandLine, SweepState, TaskRecord, apply
from hsm_core.sweepers import after_a_resume
from hsm_core.task import Task, TaskState


def state(*states: TaskState, planned: int = 0) -> SweepState:
    made = SweepState(planned=planned)
    for index, one in enumerate(states):
        made.tasks[index] = TaskRecord(index, f"k{index}", (f"x={index}",), one)
        made.counts[one] += 1
    return made


DONE, FAILED, PENDING, RUNNING = TaskState.COMPLETED, TaskState.FAILED, TaskState.PENDING, TaskState.RUNNING


@pytest.mark.parametrize(
    ("retry", "only", "words"),
    [
        (False, None, "2 completed tasks kept, 1 failed task kept (--retry-failed runs it again), 3 to run"),
        (True, None, "2 completed tasks kept, 4 to run"),
        (False, {0, 4}, "2 completed tasks kept, 1 failed task kept (--retry-failed runs it again), 1 to run"),
        (True, {2, 3, 5, 9}, "2 completed tasks kept, 3 to run"),
        (True, {0, 3}, "2 completed tasks kept, 1 failed task kept (--retry-failed runs it again), 1 to run"),
    ],
)
def test_the_forecast(retry: bool, only: set[int] | None, words: str) -> None:
    """Six are planned; the last one is not in the journal yet."""
    assert str(forecast(state(DONE, DONE, FAILED, RUNNING, PENDING, planned=6), retry, only)) == words


def test_the_plan_of_a_command_line() -> None:
    known = state(DONE, DONE, FAILED, PENDING)
    asked = [Task(index, (f"x={index}",), f"k{index}") for index in (0, 2, 3, 4, 5)]
    words = plan_words(known, asked, lambda index: index != 5, unasked=1)
    assert words == (
        "2 tasks to run, 1 completed kept, 1 failed kept, 1 left out by `tasks`, "
        "1 known task not part of this command line and left alone"
    )
    assert plan_words(state(), asked[:1], lambda index: True, unasked=0) == "1 task to run"


def test_what_holds_once_is_not_taken_over() -> None:
    argv = ["python", "t.py", "-m", "x=1", "hydra.launcher.tasks='1'", "++hydra.launcher.original_code=true"]
    argv += ["hydra.launcher.accept_config_change=true", "hydra.launcher.retry_failed=true", "hydra.launcher.grace=1"]
    assert resume_arguments(argv, Path("/s"), {"takeover": True})[3:] == [
        "x=1",
        "hydra.launcher.grace=1",
        "hydra.sweep.dir='/s'",
        "hydra.launcher.resume=true",
        "hydra.launcher.takeover=true",
    ]


def started(argv: str, cwd: str = "/home") -> ev.SweepStarted:
    return ev.SweepStarted("s", 1, "0", "3", "1", cwd, (argv,), "app", "h", 1)


@pytest.mark.parametrize(
    ("launches", "expected"),
    [
        ([3], ("0", "/home", 3)),
        ([3, 5], ("1", "/1", 5)),
        ([3, 3], ("1", "/1", 3)),
        ([3, 2], ("0", "/home", 3)),
        ([3, 5, 4, 0], ("1", "/1", 5)),
        ([0, 4], ("1", "/1", 4)),
    ],
)
def test_the_command_line_with_most_tasks_is_gone_on_with(launches: list[int], expected: tuple[str, str, int]) -> None:
    made = SweepState()
    apply(made, started("0"), 1.0)
    for number, planned in enumerate(launches):
        if number:
            apply(made, ev.SweepResumed(number + 1, "h", 1, (str(number),), f"/{number}"), 1.0)
        for _ in range(planned):  # as a sweeper does that hands over one after the other
            apply(made, ev.TasksPlanned(1), 1.0)
    argv, cwd, planned = expected
    assert made.command == CommandLine((argv,), cwd, planned)


def test_a_resume_told_by_an_older_hsm_was_in_the_same_folder() -> None:
    made = SweepState()
    apply(made, started("0"), 1.0)
    apply(made, ev.SweepResumed(2, "h", 1, ("1",)), 1.0)
    apply(made, ev.TasksPlanned(1), 1.0)
    assert made.command == CommandLine(("1",), "/home", 1)


def test_the_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"started in .*gone, which is gone.*hydra\.launcher\.resume=true"):
        check_app(CommandLine(("python", "t.py"), str(tmp_path / "gone")), tmp_path / "out" / ".hsm")
    check_app(CommandLine(("python", "t.py"), str(tmp_path)), tmp_path / "out" / ".hsm")


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", {}, None),
        ("hydra_plugins.hydra_hsm.sweeper.HsmSweeper", {}, None),
        ("hydra_plugins.hydra_ax_sweeper.ax_sweeper.AxSweeper", {}, "AxSweeper chooses its points itself"),
        ("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", {}, "5 new tasks"),
        (
            "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
            {"sampler": {"seed": 0}},
            "with seed 0 suggests the same points",
        ),
        (
            "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
            {"storage": "mysql://me:secret@host", "study_name": "mine"},
            "its study 'mine': 5 trials more",
        ),
        (
            "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
            {"storage": "mysql://me:secret@host", "study_name": None},
            "no study_name",
        ),
    ],
)
def test_what_sweepers_do_when_resumed(target: str, settings: dict[str, object], words: str | None) -> None:
    config = OmegaConf.create({"hydra": {"sweeper": {"_target_": target, "n_trials": 5, **settings}}})
    told = after_a_resume(config)
    assert (words is None) == (told is None)
    assert words is None or words in str(told)
    assert "secret" not in str(told)
