"""`hsm results`: what the tasks of a sweep returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from hsm_core.cli.output import Column, Output, Table, output_options
from hsm_core.exceptions import SweepError
from hsm_core.text import duration

if TYPE_CHECKING:
    from hsm_core.state import TaskRecord


@click.command()
@click.argument("sweep", default="latest")
@click.option("--best", type=click.Choice(["max", "min"]), help="Only the completed task with this return value.")
@click.option("--metric", help="Which value --best compares, where tasks return several by name.")
@output_options
def results(output: Output, sweep: str, best: str | None, metric: str | None) -> None:
    """List the tasks of SWEEP that have ended, with overrides and return values."""
    from hsm_core.journal import replay
    from hsm_core.registry import find

    entry = find(sweep)
    state = replay(entry.directory / ".hsm" / "journal.jsonl").state
    rows = [_row(task) for task in state.tasks.values() if task.state.terminal]
    if best is not None:
        rows = [_best(rows, best, metric)]
    output.show(rows, Table(_COLUMNS, rows) if rows else f"No task of {entry.id} has ended yet.")


def _row(task: TaskRecord) -> dict[str, Any]:
    from hsm_core.listeners.results_table import parameters
    from hsm_core.remote.names import task_name

    outcome, attempt = task.outcome, task.attempt
    assert outcome is not None and attempt is not None, "only ended tasks are listed"
    return {
        "task": task_name(task.index),
        "status": outcome.status.value,
        "cause": None if outcome.cause is None else outcome.cause.value,
        "source": attempt.source,
        "attempt": attempt.number,
        "duration": outcome.duration,
        "return_value": outcome.return_value,
        "overrides": parameters(task.overrides),
        "message": outcome.message,
    }


def _best(rows: Sequence[Mapping[str, Any]], best: str, metric: str | None) -> dict[str, Any]:
    """The completed row with the largest or smallest number. Raises SweepError where no row has one."""
    completed = [row for row in rows if row["status"] == "completed"]
    numbered = [(value, row) for row in completed if (value := _number(row["return_value"], metric)) is not None]
    if not numbered:
        named = {name for row in completed if isinstance(row["return_value"], dict) for name in row["return_value"]}
        hint = f" Choose with --metric from {', '.join(sorted(named))}." if named else ""
        raise SweepError(f"No completed task returned a number{f' named {metric}' if metric else ''}.{hint}")
    return dict((max if best == "max" else min)(numbered, key=lambda pair: pair[0])[1])


def _number(value: Any, metric: str | None) -> float | None:
    if metric is not None:
        value = value.get(metric) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) and value == value else None


def _value(value: Any) -> str:
    from hsm_core.listeners.results_table import value_text

    return value_text(value)


def _overrides(overrides: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items())


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


_COLUMNS = (
    Column("task", "Task"),
    Column("status", "Status"),
    Column("return_value", "Return value", _value),
    Column("overrides", "Overrides", _overrides),
    Column("source", "Source"),
    Column("duration", "Duration", _duration, right=True),
    Column("message", "Message"),
)
