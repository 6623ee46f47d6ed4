"""The commands `hsm` and `hsm-monitor`. Each command's module imports what it needs when it runs."""

from __future__ import annotations

import io
import sys

import rich_click as click

from hsm_core import __version__
from hsm_core.cli.attach import attach
from hsm_core.cli.audit import audit
from hsm_core.cli.cancel import cancel
from hsm_core.cli.complete import complete
from hsm_core.cli.group import HsmGroup
from hsm_core.cli.journal import journal
from hsm_core.cli.monitor import monitor
from hsm_core.cli.results import results
from hsm_core.cli.run import run
from hsm_core.cli.sources import sources
from hsm_core.cli.sweeps import sweeps


@click.group(cls=HsmGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hsm")
def hsm() -> None:
    """Run one Hydra sweep over every computer you have."""


for _command in (run, complete, attach, monitor, sweeps, results, cancel, sources, audit, journal):
    hsm.add_command(_command)


def main() -> None:
    """Entry point `hsm`."""
    _escape_what_the_terminal_cannot_show()
    hsm.main(prog_name="hsm")


def monitor_main() -> None:
    """Entry point `hsm-monitor`, the same as `hsm monitor`."""
    _escape_what_the_terminal_cannot_show()
    monitor.main(prog_name="hsm-monitor")


def _escape_what_the_terminal_cannot_show() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
