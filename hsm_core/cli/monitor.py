"""`hsm monitor`, which is `hsm-monitor` too: look at sweeps from outside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich_click as click

from hsm_core.cli.group import HsmGroup
from hsm_core.cli.output import Column, Output, Table, TextOutput, output_options
from hsm_core.exceptions import SweepError
from hsm_core.text import clock

if TYPE_CHECKING:
    from hsm_core.monitor.watch import Watch


@click.group(cls=HsmGroup, context_settings={"help_option_names": ["-h", "--help"]})
def monitor() -> None:
    """Look at sweeps while they run, and afterwards."""


@monitor.command()
@click.argument("sweep", default="latest")
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Show how the sweep stands, and leave.")
@output_options
def watch(output: Output, sweep: str, interval: float, once: bool) -> None:
    """Follow SWEEP (an id, the beginning of one, a directory, or latest) until it ends."""
    from hsm_core.monitor import watch as watching
    from hsm_core.registry import find

    entry = find(sweep)
    following = watching.Watch(entry.directory)
    try:
        if isinstance(output, TextOutput) and sys.stdout.isatty():
            watching.watch_screen(following, None if once else interval)
        elif once:
            following.poll()
            _show(output, following)
        else:
            watching.watch_changes(following, interval, lambda now, lines: output.show(now.to_json(), *lines))
    except KeyboardInterrupt:
        click.echo(f"The sweep goes on; hsm monitor watch {entry.id} shows it again.", err=True)
        return
    if following.launcher_gone and not once:
        raise SweepError(f"The launcher of {entry.id} is gone. hsm complete {entry.id} goes on with the sweep.")


def _show(output: Output, following: Watch) -> None:
    """How the sweep stands now."""
    from hsm_core.monitor.view import queue_lines
    from hsm_core.monitor.watch import status_line

    now = following.figures.to_json()
    lines = [f"[{clock(at)}] {told.text}" for at, told in following.recent]
    queues = queue_lines(following.figures.sources)
    output.show(now, status_line(following.figures), Table(_SOURCE_COLUMNS, now["sources"]), *queues, *lines)


_SOURCE_COLUMNS = (
    Column("name", "Source"),
    Column("active", "Active", right=True),
    Column("slots", "Slots", right=True),
    Column("completed", "Completed", right=True),
    Column("failed", "Failed", right=True),
    Column("health", "Health Status", str.capitalize),
    Column("reason", "Reason"),
)
