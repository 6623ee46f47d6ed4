"""What `hsm run --detach` and `hsm complete --detach` do and print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from hsm_core.cli.output import Column, Output, Table
from hsm_core.text import printable_lines


def run_detached(output: Output, arguments: Sequence[str], directory: Path, cwd: Path) -> None:
    """Start the launcher and print where its sweep is and how to reach it, once it has begun.

    Where it has not, what the launcher said is printed, and its exit code is ours.
    """
    from hsm_core.detach import start_detached
    from hsm_core.exceptions import SweepNotBegun

    try:
        begun = start_detached(arguments, directory, cwd)
    except SweepNotBegun as e:
        click.echo(f"{printable_lines(e.said.rstrip())}\nError: {e}".lstrip(), err=True)
        raise SystemExit(e.exit_code or 1) from e
    row = {"id": begun.id, "directory": str(begun.directory), "pid": begun.pid, "log": str(begun.log)}
    commands = (
        f"hsm attach {begun.id}           follow it as if it ran here; Ctrl-C leaves it running",
        f"hsm monitor watch {begun.id}    look at it",
        f"hsm cancel {begun.id}           end it",
    )
    output.show(row, Table(_COLUMNS, [row]), *commands)


_COLUMNS = (Column("id", "Sweep"), Column("pid", "Launcher"), Column("directory", "Directory"))
