"""`hsm attach`: follow a sweep from any terminal, as if it had been started there."""

from __future__ import annotations

import sys

import rich_click as click

from hsm_core.cli.output import Output, TextOutput, output_options
from hsm_core.exceptions import SweepError


@click.command()
@click.argument("sweep", default="latest")
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=0.5,
    show_default=True,
    help="Seconds between two looks.",
)
@output_options
def attach(output: Output, sweep: str, interval: float) -> None:
    """Follow SWEEP until it ends, and end with its exit code. Ctrl-C leaves it running.

    The exit code is 0 when all tasks completed, 1 when some failed or the sweep was stopped, 130
    or 143 when it was interrupted by SIGINT or SIGTERM.
    """
    from hsm_core.monitor.attach import attach as follow
    from hsm_core.monitor.watch import Watch, watch_changes
    from hsm_core.registry import find

    entry = find(sweep)
    watch = Watch(entry.directory)
    try:
        if isinstance(output, TextOutput):
            follow(watch, entry.directory, sys.stdout, interval)
        else:
            watch_changes(watch, interval, lambda now, lines: output.show(now.to_json(), *lines))
    except KeyboardInterrupt:
        click.echo(f"{entry.id} goes on. To follow it again: hsm attach {entry.id}", err=True)
        click.echo(f"To end it: hsm cancel {entry.id}", err=True)
        raise SystemExit(130) from None
    if watch.launcher_gone:
        raise SweepError(f"The launcher of {entry.id} is gone. hsm complete {entry.id} goes on with the sweep.")
    raise SystemExit(watch.exit_code)
