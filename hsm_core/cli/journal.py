"""`hsm journal`: mend the journal of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rich_click as click

from hsm_core.cli.group import HsmGroup
from hsm_core.cli.output import Output, output_options
from hsm_core.exceptions import SweepError
from hsm_core.text import plural

if TYPE_CHECKING:
    from hsm_core.journal.repair import Damage

_NAMED = 5
"""tasks that are named; of more only their number is told"""


@click.group(cls=HsmGroup, context_settings={"help_option_names": ["-h", "--help"]})
def journal() -> None:
    """Mend the journal of a sweep."""


@journal.command()
@click.argument("sweep")
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
@output_options
def repair(output: Output, sweep: str, yes: bool) -> None:
    """End the journal of SWEEP with its last good line, where it can't be read any further.

    What would be dropped is shown first, and is kept in a file of its own.
    """
    from hsm_core.journal.repair import cut, examine
    from hsm_core.owner import Owner
    from hsm_core.registry import find

    entry = find(sweep)
    path = entry.directory / ".hsm" / "journal.jsonl"
    owner = Owner.acquire(path.parent)
    try:
        damage = examine(path)
        if damage is None:
            output.show({"id": entry.id, "damaged": False}, f"The journal of {entry.id} can be read to its end.")
            return
        for line in _told(damage):
            click.echo(line, err=True)
        if not yes:
            _ask()
        rest = cut(path, damage)
    finally:
        owner.release()
    data = {
        "id": entry.id,
        "damaged": True,
        "problem": damage.problem,
        "kept_lines": damage.good.seq,
        "kept_bytes": damage.good.offset,
        "dropped_bytes": damage.size,
        "dropped_records": damage.records,
        "dropped_ends": list(damage.ended),
        "dropped_to": str(rest),
    }
    output.show(data, f"Done. What was dropped is in {rest}", f"Go on with: hsm complete {entry.id}")


def _told(damage: Damage) -> Iterator[str]:
    from hsm_core.remote.names import task_name

    good = damage.good
    yield f"Line {good.seq + 1} of the journal, at byte {good.offset}, is damaged: {damage.problem}."
    yield f"To be kept: the {plural(good.seq, 'good line')} before it."
    yield f"To be dropped: {plural(damage.size, 'byte')}, among them {plural(damage.records, 'line')} that can be read."
    if damage.ended:
        names = ", ".join(map(task_name, damage.ended[:_NAMED]))
        more = f" and {len(damage.ended) - _NAMED} more" if len(damage.ended) > _NAMED else ""
        yield f"Only these tell how {names}{more} ended: `hsm complete` will run that again."


def _ask() -> None:
    """Raises SweepError where nobody can answer, click.Abort for a no."""
    if not sys.stdin.isatty():
        raise SweepError("Nothing was changed. To drop that, say --yes.")
    click.confirm("Drop it?", abort=True, err=True)
