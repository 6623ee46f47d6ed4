"""`hsm complete`: go on with a sweep that has ended before all of its tasks did."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hsm_core.cli.output import Output, output_options

if TYPE_CHECKING:
    from hsm_core.registry import RegistryEntry
    from hsm_core.state import SweepState


@click.command()
@click.argument("sweep")
@click.option("--sources", help="Where to run what is left: all, or names with limits such as local:4,server1:8.")
@click.option("--strategy", help="round_robin, least_loaded, random, weighted, priority, or your own.")
@click.option("--retry-failed", is_flag=True, help="Run failed tasks again too.")
@click.option("--tasks", help="Only these, such as task_050:task_100 or task_003,task_007.")
@click.option("--takeover", is_flag=True, help="Take the sweep from a launcher that may still live.")
@click.option("--detach", is_flag=True, help="Return once the sweep goes on; it needs this terminal no more.")
@click.option("--accept-config-change", is_flag=True, help="Use a configuration that changed since for what is left.")
@click.option("--original-code", is_flag=True, help="Use code and configuration of the sweep's start for what is left.")
@output_options
def complete(
    output: Output,
    sweep: str,
    sources: str | None,
    strategy: str | None,
    retry_failed: bool,
    tasks: str | None,
    takeover: bool,
    accept_config_change: bool,
    original_code: bool,
    detach: bool,
) -> None:
    """Run what is missing of SWEEP, with the command line that started it; finished tasks stay as they are."""
    if accept_config_change and original_code:
        raise click.UsageError("--accept-config-change and --original-code exclude each other")
    from hsm_core.cli.detached import run_detached
    from hsm_core.debris import finish_closing
    from hsm_core.journal import replay
    from hsm_core.ownership import refuse_foreign_sweep
    from hsm_core.registry import find
    from hsm_core.resume import check_app, forecast, left_to_run, resume_arguments
    from hsm_core.sweep_launch import STARTED_BY, become
    from hsm_core.task import task_indices

    try:
        only = None if tasks is None else task_indices(tasks)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--tasks") from e
    entry = find(sweep)
    refuse_foreign_sweep(entry.directory)
    if not takeover:
        _refuse_running(entry)
    state = replay(entry.directory / ".hsm" / "journal.jsonl").state
    if only is not None and not any(index < state.total for index in only):
        raise click.BadParameter(f"{entry.id} has {state.total} tasks, none of these", param_hint="--tasks")
    if not left_to_run(state, retry_failed, only):
        finish_closing(entry.directory, takeover)
        output.show({"id": entry.id, "left": 0}, _nothing_left(entry, state))
        return
    check_app(state.command, entry.directory / ".hsm")
    told = forecast(state, retry_failed, only)
    output.show({"id": entry.id, **dataclasses.asdict(told)}, f"{entry.id}: {told}")
    settings = {
        "sources": sources,
        "strategy": strategy,
        "retry_failed": retry_failed or None,
        "tasks": tasks,
        "takeover": takeover or None,
        "accept_config_change": accept_config_change or None,
        "original_code": original_code or None,
    }
    arguments = resume_arguments(state.command.argv, entry.directory, settings)
    os.environ[STARTED_BY] = "complete"
    if detach:
        run_detached(output, arguments, entry.directory, Path(state.command.cwd))
        return
    os.chdir(state.command.cwd)
    become(arguments, os.environ)


def _refuse_running(entry: RegistryEntry) -> None:
    """Raise SweepBusy when a launcher holds the sweep, or may."""
    import time

    from hsm_core.exceptions import SweepBusy
    from hsm_core.owner import current
    from hsm_core.text import duration, printable, stamp

    owner = current(entry.directory / ".hsm")
    if owner is None or owner.released or owner.alive is False:
        return
    who = f"pid {owner.pid} on {printable(owner.host)}" if owner.host else "another launcher"
    since = f"since {stamp(owner.since)}, {duration(time.time() - owner.since)} ago"
    if owner.alive:
        advice = f"Watch it: hsm monitor watch {entry.id}. End it: hsm cancel {entry.id}"
    else:
        advice = "From here it can't be told whether it still lives. Once it is surely gone: --takeover"
    raise SweepBusy(f"{entry.id} is run by {who} ({since}). {advice}")


def _nothing_left(entry: RegistryEntry, state: SweepState) -> str:
    from hsm_core.task import TaskState
    from hsm_core.text import plural

    failed = state.counts[TaskState.FAILED]
    if failed:
        return f"{entry.id} has nothing left to run; --retry-failed runs its {plural(failed, 'failed task')} again."
    return f"{entry.id} has nothing left to run ({plural(state.total, 'task')} completed)."
