"""What a sweep would run: every point composed, nothing started, nothing written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hsm_core.dry_run import PLAN_FILE
from hsm_core.lanes import Lanes
from hsm_core.multirun import Multirun
from hsm_core.points import Points
from hsm_core.remote.compose import Composer
from hsm_core.remote.place import output_dir, problem
from hsm_core.state import SweepState
from hsm_core.task import task_key
from hsm_core.text import printable, printable_lines


def make_plan(
    lanes: Lanes,
    multirun: Multirun,
    job_overrides: Sequence[Sequence[str]],
    first_index: int,
    resumed: SweepState | None = None,
) -> dict[str, Any]:
    """The plan as JSON: sweep_dir, sources, and every task with its directory, duplicate and error.

    Of a sweep that is to be `resumed` the tasks have their numbers and states; those of new ones are `new`.
    """
    sweep_dir = Path(str(multirun.config.hydra.sweep.dir)).absolute()
    first_with: dict[str, str] = {}
    tasks = []
    known = {} if resumed is None else resumed.tasks
    for task in Points(known).tasks(job_overrides, first_index):
        key, name, index = task_key(task.overrides), task.name, task.index
        folder, error = _output_dir(multirun.composer, task.overrides, index)
        if folder is not None:
            error = problem(str(sweep_dir), folder)
        earlier = first_with.setdefault(key, name)
        tasks.append(
            {
                "task": name,
                "index": index,
                "key": key,
                "state": known[index].state.value if index in known else "new",
                "overrides": list(task.overrides),
                "output_dir": folder,
                "duplicate_of": None if earlier == name else earlier,
                "error": error,
            }
        )
    errors = _shared_directories(tasks)
    sources = [{"name": source.name, "type": source.type, "slots": source.slots or None} for source in lanes]
    return {"sweep_dir": str(sweep_dir), "sources": sources, "tasks": tasks, "errors": errors}


def _output_dir(composer: Composer, overrides: Sequence[str], index: int) -> tuple[str | None, str | None]:
    """Where a task would write, and why it can't be composed; one of them is None."""
    try:
        return output_dir(composer.compose(overrides, index)), None
    except (HydraException, OmegaConfBaseException) as e:
        cause = f": {e.__cause__}" if e.__cause__ is not None else ""
        return None, f"{e}{cause}".strip()


def _shared_directories(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    owners: dict[str, str] = {}
    problems = []
    for task in tasks:
        if task["output_dir"] is None:
            continue
        owner = owners.setdefault(task["output_dir"], task["task"])
        if owner != task["task"]:
            problems.append(
                f"{task['task']} and {owner} have the same directory {task['output_dir']}; see hydra.sweep.subdir"
            )
    return problems


def show_plan(plan: Mapping[str, Any]) -> int:
    """Hand the plan to who asked for it; returns the exit code.

    `hsm run --dry-run` names a file by an environment variable; else it goes to the terminal.
    """
    asked = os.environ.get(PLAN_FILE)
    if asked is not None:
        Path(asked).write_text(json.dumps(plan), encoding="utf-8")
    else:
        sys.stdout.write("\n".join(_lines(plan)) + "\n")
    return 1 if plan["errors"] or any(task["error"] for task in plan["tasks"]) else 0


def _lines(plan: Mapping[str, Any]) -> list[str]:
    lines = []
    for source in plan["sources"]:
        slots = f"{source['slots']} slots" if source["slots"] else "as many slots as its GPUs have room for"
        lines.append(f"{source['name']}: {source['type']}, {slots}")
    for task in plan["tasks"]:
        note = task["error"] or task["output_dir"]
        known = "" if task["state"] == "new" else f" ({task['state']})"
        again = f" (the same point as {task['duplicate_of']})" if task["duplicate_of"] else ""
        lines.append(f"{task['task']}{known}{again}: {' '.join(task['overrides'])} -> {note}")
    errors = [printable_lines(f"error: {error}") for error in plan["errors"]]
    last = f"{len(plan['tasks'])} tasks in {plan['sweep_dir']}; nothing was run"
    return [*(printable(line) for line in lines), *errors, printable(last)]
