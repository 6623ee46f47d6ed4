"""`hsm sweeps`: the sweeps of this user on this machine."""

from __future__ import annotations

from typing import Any

import rich_click as click

from hsm_core.cli.output import Column, Output, Table, output_options
from hsm_core.text import stamp


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Show at most this many.")
@output_options
def sweeps(output: Output, limit: int) -> None:
    """List the sweeps, newest first."""
    from hsm_core.registry import entries

    known = entries()
    rows = [_row(entry) for entry in known[:limit]]
    parts: list[Table | str] = [Table(_COLUMNS, rows)] if rows else ["There are no sweeps yet."]
    if len(known) > limit:
        parts.append(f"{len(known) - limit} older ones are left out; --limit shows more.")
    output.show(rows, *parts)


def _row(entry: Any) -> dict[str, Any]:
    from hsm_core.exceptions import JournalError
    from hsm_core.journal import replay
    from hsm_core.owner import current
    from hsm_core.state import SweepState
    from hsm_core.summary import figures

    problem, state = "", SweepState()
    try:
        state = replay(entry.directory / ".hsm" / "journal.jsonl").state
    except (JournalError, OSError) as e:
        problem = str(e)
    now = figures(state, current(entry.directory / ".hsm"))
    word = "unreadable" if problem else "failed tasks" if now.status == "finished" and now.failed else now.status
    return {
        "id": entry.id,
        "state": word,
        "completed": now.completed,
        "failed": now.failed,
        "active": now.active,
        "pending": now.pending,
        "total": now.total,
        "started": state.started_at,
        "directory": str(entry.directory),
        "problem": problem,
    }


def _started(at: float | None) -> str:
    return "" if at is None else stamp(at)


_COLUMNS = (
    Column("id", "Sweep"),
    Column("state", "State"),
    Column("completed", "Completed", right=True),
    Column("failed", "Failed", right=True),
    Column("active", "Active", right=True),
    Column("pending", "Pending", right=True),
    Column("started", "Started", _started),
    Column("directory", "Directory"),
)
