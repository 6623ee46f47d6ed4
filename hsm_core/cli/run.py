"""`hsm run`: start the sweep that a sweep.yaml describes."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import rich_click as click

from hsm_core.cli.output import Column, Output, Table, output_options


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("sweep.yaml"),
    show_default=True,
    help="The sweep file.",
)
@click.option("--sources", help="Where to run: all, or names with limits such as local:4,server1:8.")
@click.option("--strategy", help="round_robin, least_loaded, random, weighted, priority, or your own.")
@click.option("--dependency", help="What jobs on clusters wait for: afterok:12345, or any other of the scheduler's.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Run at most this many tasks.")
@click.option("--seed", type=int, help="Seed of the random strategy.")
@click.option("--fail-fast", type=float, help="Stop after this many failed tasks, or this fraction of all.")
@click.option("--retry-attempts", type=click.IntRange(min=0), help="How often a task that failed is tried again.")
@click.option("--detach", is_flag=True, help="Return once the sweep has begun; it goes on without this terminal.")
@click.option("--dry-run", is_flag=True, help="Show tasks, sources and mistakes, and run nothing.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@output_options
def run(output: Output, config: Path, detach: bool, dry_run: bool, overrides: tuple[str, ...], **options: Any) -> None:
    """Run the sweep that a sweep file describes. OVERRIDES are Hydra's and win over the file."""
    from hsm_core import sweep_launch
    from hsm_core.cli.detached import run_detached
    from hsm_core.sweep_file import RunOptions, command_line, load

    cwd = Path.cwd()
    sweep_file = load(config)
    program = sweep_launch.program(sweep_file, cwd)
    chosen = RunOptions(overrides=overrides, **options)
    # Composed once before the directory is made: what is wrong with the options leaves nothing behind.
    arguments = command_line(sweep_file, program, str(sweep_launch.next_directory(cwd, time.time())), chosen)
    if dry_run:
        _show_plan(output, arguments)
        return
    directory = sweep_launch.reserve_directory(cwd, time.time())
    os.environ[sweep_launch.STARTED_BY] = "run"
    arguments = command_line(sweep_file, program, str(directory), chosen)
    if not detach:
        sweep_launch.become(arguments, os.environ)
    try:
        run_detached(output, arguments, cwd / directory, cwd)
    except BaseException:
        with contextlib.suppress(OSError):  # where there is a sweep in it, it stays
            (cwd / directory).rmdir()
        raise


def _show_plan(output: Output, arguments: list[str]) -> None:
    from hsm_core.dry_run import read_plan

    plan = read_plan(arguments)
    tasks, sources, errors = plan["tasks"], plan["sources"], plan["errors"]
    rows = [
        {
            **task,
            "overrides": " ".join(task["overrides"]),
            "output_dir": task["output_dir"] or "",
            "note": f"same as {task['duplicate_of']}" if task["duplicate_of"] else "",
        }
        for task in tasks
    ]
    broken = [f"{task['task']}: {task['error']}" for task in tasks if task["error"]]
    output.show(
        plan,
        Table(_TASK_COLUMNS, rows, "Tasks"),
        Table(_SOURCE_COLUMNS, sources, "Sources"),
        f"{len(tasks)} tasks in {plan['sweep_dir']}; nothing was run.",
        *(f"Error: {error}" for error in [*errors, *broken]),
    )
    if errors or broken:
        raise SystemExit(1)


_TASK_COLUMNS = (
    Column("task", "Task"),
    Column("overrides", "Overrides"),
    Column("output_dir", "Directory"),
    Column("note", "Note"),
)
_SOURCE_COLUMNS = (Column("name", "Source"), Column("type", "Type"), Column("slots", "Slots", right=True))
