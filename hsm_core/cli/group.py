"""The command group: turns hsm's errors into one message and an exit code."""

from __future__ import annotations

import errno
from typing import Any

import rich_click as click

from hsm_core.exceptions import BAD_INPUT, HsmError
from hsm_core.text import printable, printable_lines


class HsmGroup(click.RichGroup):
    """A click group. Exit codes of its commands: 0 done, 1 what was asked failed, 2 bad input."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HsmError as e:
            click.echo(f"Error: {printable_lines(str(e))}", err=True)
            ctx.exit(2 if isinstance(e, BAD_INPUT) else 1)
        except OSError as e:
            if e.errno == errno.EPIPE:  # the reader of our output has enough; click ends us quietly
                raise
            click.echo(f"Error: {printable(str(e))}", err=True)
            ctx.exit(1)
