"""How a sweep is gone on with: what is left of it, and the command line that runs it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsm_core.exceptions import SweepError
from hsm_core.override_text import literal, quote
from hsm_core.remote.app import Payload
from hsm_core.state import CommandLine, SweepState, TaskRecord
from hsm_core.task import Task, TaskState
from hsm_core.text import plural, printable

ONCE = ("retry_failed", "tasks", "takeover", "accept_config_change", "original_code")
"""keys of `hydra.launcher` that hold for one launcher, and not for those that go on after it"""

# Hydra's flags that take a value, which may look like an override.
_VALUED = frozenset(
    {
        "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
        "--experimental-rerun", "--info", "-i",
    }
)  # fmt: skip


def left_to_run(state: SweepState, retry_failed: bool, only: Set[int] | None) -> bool:
    """Whether resuming would do anything: for all tasks, or for `only` these.

    A sweep that did not come to its end may have tasks that its journal does not know yet; results of one that did may
    not all be home.
    """
    if only is None and (state.status != "finished" or state.ended < state.total or uncollected(state)):
        return True
    done = {TaskState.COMPLETED} if retry_failed else {TaskState.COMPLETED, TaskState.FAILED}
    if only is None:
        return any(task.state not in done for task in state.tasks.values())
    known = state.tasks
    return any(known[index].state not in done if index in known else index < state.total for index in only)


def is_away(state: SweepState, task: TaskRecord) -> bool:
    """Whether a task has ended on a source that shares no files with us, and left there what is not home."""
    last = task.attempt
    if last is None or not task.state.terminal or last.output_dir is None or last.collected:
        return False
    source = state.sources.get(last.source)
    return source is not None and source.facts.get("shares_files") is False


def uncollected(state: SweepState) -> int:
    """How many tasks that is so of."""
    return sum(is_away(state, task) for task in state.tasks.values())


@dataclass(frozen=True)
class Forecast:
    """What resuming a sweep will do with its tasks, as far as the journal knows them."""

    completed: int
    failed: int
    """failed tasks that stay so"""
    left: int
    """tasks to be run"""
    uncollected: int = 0
    """ended tasks whose results are to be brought home"""

    def __str__(self) -> str:
        kept = [f"{plural(self.completed, 'completed task')} kept"] if self.completed else []
        if self.failed:
            again = "--retry-failed runs it again" if self.failed == 1 else "--retry-failed runs them again"
            kept.append(f"{plural(self.failed, 'failed task')} kept ({again})")
        if self.uncollected:
            kept.append(f"results of {plural(self.uncollected, 'task')} to bring home")
        return ", ".join([*kept, f"{self.left} to run"])


def forecast(state: SweepState, retry_failed: bool, only: Set[int] | None) -> Forecast:
    """What resuming will do; with `only`, all other tasks are left as they are."""
    completed, failed = state.counts[TaskState.COMPLETED], state.counts[TaskState.FAILED]
    if only is None:
        again = failed if retry_failed else 0
        return Forecast(completed, failed - again, state.total - completed - failed + again, uncollected(state))
    known = [state.tasks[index].state for index in only if index in state.tasks]
    again = known.count(TaskState.FAILED) if retry_failed else 0
    left = sum(not task.terminal for task in known) + sum(i < state.total and i not in state.tasks for i in only)
    return Forecast(completed, failed - again, left + again, uncollected(state))


def plan_words(state: SweepState, asked: Iterable[Task], wanted: Callable[[int], bool], unasked: int) -> str:
    """What a launcher does with the tasks that its command line asks for, for people.

    `unasked`: how many others are known.
    """
    kept: Counter[TaskState] = Counter()
    left = out = 0
    for task in asked:
        known = state.tasks.get(task.index)
        if known is not None and known.state.terminal:
            kept[known.state] += 1
        elif wanted(task.index):
            left += 1
        else:
            out += 1
    parts = [f"{plural(left, 'task')} to run"]
    parts += [f"{kept[state]} {state.value} kept" for state in (TaskState.COMPLETED, TaskState.FAILED) if kept[state]]
    if out:
        parts.append(f"{out} left out by `tasks`")
    if unasked:
        parts.append(f"{plural(unasked, 'known task')} not part of this command line and left alone")
    return ", ".join(parts)


def check_app(command: CommandLine, hsm: Path) -> None:
    """Make sure that the command line can be run again. Raises SweepError that says what is gone, and what to do."""
    advice = (
        "Put it back; or run the app from where it is now, with the overrides of the sweep, "
        f"hydra.sweep.dir={quote(literal(str(hsm.parent)))} and hydra.launcher.resume=true"
    )
    if not os.path.isdir(command.cwd):
        raise SweepError(f"the sweep was started in {printable(command.cwd)}, which is gone. {advice}")
    try:
        entry = Payload.read(str(hsm / SweepState().config)).facts["entry"]
    except (OSError, ValueError, KeyError):
        return  # the app's own start will tell
    if entry["kind"] == "script" and not os.path.exists(entry["path"]):
        raise SweepError(f"the sweep's app {printable(entry['path'])} is gone. {advice}")


def resume_arguments(argv: Sequence[str], directory: Path, settings: Mapping[str, Any]) -> list[str]:
    """The command line that goes on with the sweep in `directory`, from the one that started it.

    `settings` are keys of `hydra.launcher`; None leaves what that command line says, but for what holds
    `ONCE`. Overrides that are replaced are taken out, the new ones stand behind the last override.
    """
    launcher = {"resume": True, **{key: value for key, value in settings.items() if value is not None}}
    added = {"hydra.sweep.dir": quote(literal(str(directory)))}
    added.update((f"hydra.launcher.{key}", quote(value)) for key, value in launcher.items())
    replaced = {*added, *(f"hydra.launcher.{key}" for key in ONCE)}
    kept = [argument for argument in argv if argument.lstrip("+").partition("=")[0] not in replaced]
    place = _behind_overrides(kept)
    return [*kept[:place], *(f"{key}={value}" for key, value in added.items()), *kept[place:]]


def _behind_overrides(argv: Sequence[str]) -> int:
    """Where overrides can be added: Hydra wants all of them in one row, among its flags."""
    last = len(argv) - 1
    for i in range(len(argv) - 1, 0, -1):
        is_override = not argv[i].startswith("-") and ("=" in argv[i] or argv[i].startswith("~"))
        if is_override and argv[i - 1] not in _VALUED:
            last = i
            break
    return last + 1
