"""How a sweep is gone on with: what is left of it, and the command line that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from hsm_core.override_text import literal, quote
from hsm_core.state import SweepState
from hsm_core.task import TaskState

# Hydra's flags that take a value, which may look like an override.
_VALUED = frozenset(
    {
        "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
        "--experimental-rerun", "--info", "-i",
    }
)  # fmt: skip


def left_to_run(state: SweepState, retry_failed: bool, only: Set[int] | None) -> bool:
    """Whether resuming would run anything: of all tasks, or of `only` these.

    A sweep that did not come to its end may have tasks that its journal does not know yet.
    """
    if only is None and (state.status != "finished" or state.ended < state.total):
        return True
    done = {TaskState.COMPLETED} if retry_failed else {TaskState.COMPLETED, TaskState.FAILED}
    if only is None:
        return any(task.state not in done for task in state.tasks.values())
    known = state.tasks
    return any(known[index].state not in done if index in known else index < state.total for index in only)


def resume_arguments(argv: Sequence[str], directory: Path, settings: Mapping[str, Any]) -> list[str]:
    """The command line that goes on with the sweep in `directory`, from the one that started it.

    `settings` are keys of `hydra.launcher`; None leaves what the first command line says. Overrides
    that are replaced are taken out, the new ones stand behind the last override.
    """
    launcher = {"resume": True, **{key: value for key, value in settings.items() if value is not None}}
    added = {"hydra.sweep.dir": quote(literal(str(directory)))}
    added.update((f"hydra.launcher.{key}", quote(value)) for key, value in launcher.items())
    kept = [argument for argument in argv if argument.lstrip("+").partition("=")[0] not in added]
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
