"""`hsm cancel`: end a running sweep from another terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rich_click as click

from hsm_core.cli.output import Output, output_options

if TYPE_CHECKING:
    from hsm_core.events import CommandDone
    from hsm_core.registry import RegistryEntry

_LOOK_EVERY = 0.1


@click.command()
@click.argument("sweep")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for the answer."
)
@output_options
def cancel(output: Output, sweep: str, wait: float) -> None:
    """End the running tasks of SWEEP and stop it; `hsm complete` can go on with it later."""
    from hsm_core.exceptions import SweepError
    from hsm_core.registry import find

    entry = find(sweep)
    answer = _ask(entry, wait)
    if not answer.ok:
        raise SweepError(f"{entry.id} was not cancelled: {answer.message}")
    output.show({"id": entry.id, "message": answer.message}, f"{entry.id}: {answer.message}")


def _ask(entry: RegistryEntry, wait: float) -> CommandDone:
    """Send the command and wait for the launcher's answer. Raises SweepError when none can or does come."""
    from hsm_core.control import send
    from hsm_core.events import CommandDone
    from hsm_core.exceptions import SweepError
    from hsm_core.journal import Tail, replay
    from hsm_core.owner import current
    from hsm_core.text import printable

    hsm_dir = entry.directory / ".hsm"
    tail = Tail(hsm_dir / "journal.jsonl", replay(hsm_dir / "journal.jsonl"))
    command, deadline = "", time.monotonic() + wait
    while True:
        owner = current(hsm_dir)
        gone = owner is None or owner.released or owner.alive is False
        if gone and not command:
            raise SweepError(f"{entry.id} is not running, so there is nothing to cancel.")
        command = command or send(hsm_dir, "cancel")
        for journaled in tail.poll():
            if isinstance(journaled.event, CommandDone) and journaled.event.id == command:
                return journaled.event
        if owner is None or gone:
            raise SweepError(f"The launcher of {entry.id} ended without an answer; see hsm sweeps.")
        who = f"The launcher of {entry.id}, pid {owner.pid} on {printable(owner.host)},"
        if owner.stopped:
            raise SweepError(f"{who} is stopped. It obeys once it goes on: kill -CONT {owner.pid}")
        if time.monotonic() >= deadline:
            raise SweepError(f"{who} did not answer within {wait:g}s; the command stays with it.")
        time.sleep(_LOOK_EVERY)
