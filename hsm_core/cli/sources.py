"""`hsm sources`: look at the places that run tasks."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from hsm_core.cli.group import HsmGroup
from hsm_core.cli.output import Names, Output, output_options

if TYPE_CHECKING:
    from hsm_core.selection import Selected
    from hsm_core.sources.steps import Step


@click.group(cls=HsmGroup, context_settings={"help_option_names": ["-h", "--help"]})
def sources() -> None:
    """Look at the places that run tasks: those of hsm_config.yaml."""


_config = click.option(
    "--config", "file", type=click.Path(dir_okay=False), help="The configuration file, if not one of the usual places."
)


def _named(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command NAMES or --all, and --config."""
    for add in (
        _config,
        click.option("--all", "every", is_flag=True, help="All sources."),
        click.argument("names", nargs=-1),
    ):
        command = add(command)
    return command


def _selected(names: Sequence[str], every: bool, file: str | None) -> list[Selected]:
    """The sources that are meant. Raises ConfigError and SelectionError."""
    from hsm_core.config.load import load
    from hsm_core.selection import select

    if every == bool(names):
        raise click.UsageError("name the sources, or say --all")
    config = load({"config_file": file}, cwd=Path.cwd())
    return select(",".join(names) or "all", config.compute_sources)


@sources.command()
@_named
@output_options
@click.pass_context
def test(ctx: click.Context, output: Output, names: tuple[str, ...], every: bool, file: str | None) -> None:
    """Go step by step through what the sources NAMES need, up to an agent that answers.

    All of them at the same time. What has to be done is said of each step that fails; exit code 1 then. Nothing but
    hsm's own code stays there. --quiet prints the names of those that can be used.
    """
    from hsm_core.sources.checks import check
    from hsm_core.sources.steps import Status, at_once

    selected = _selected(names, every, file)
    width = max(len(one.name) for one in selected)
    steps: dict[str, list[Step]] = {one.name: [] for one in selected}
    for name, step in at_once(check, selected):
        steps[name].append(step)
        for line in _step_lines(name.ljust(width), step):
            output.tell(line)
    failed = [name for name, found in steps.items() if any(step.status is Status.FAILED for step in found)]
    data = [
        {"source": one.name, "type": one.config.type, "ok": one.name not in failed, "steps": _steps(steps[one.name])}
        for one in selected
    ]
    usable = [name for name, found in steps.items() if name not in failed and found[-1].status is not Status.UNTESTED]
    output.show(data, Names(usable), *(_verdict(name.ljust(width), found) for name, found in steps.items()))
    ctx.exit(1 if failed else 0)


_WORDS = {"good": "ok", "warning": "note", "failed": "FAILED", "untested": "untested"}


def _step_lines(source: str, step: Step) -> list[str]:
    """A step as it is told: one line where it is good, the others below each other; nothing of those not reached."""
    word = _WORDS.get(step.status.value)
    if word is None:
        return []
    head = f"{source}  {step.name:<11} {word:<8}  "
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    took = f"  ({step.seconds:.1f} s)" if step.seconds >= 1 else ""
    lines = [piece for line in f"{step.told}{took}".split("\n") for piece in _wrapped(line, width - len(head))]
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


def _wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of that width; commands, which are indented, are left as they are, to be copied."""
    if line.startswith("    ") or width < 20:
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]


def _verdict(source: str, found: Sequence[Step]) -> str:
    from hsm_core.sources.steps import Status
    from hsm_core.text import plural

    by = {status: [step.name for step in found if step.status is status] for status in Status}
    if by[Status.UNTESTED]:
        return f"{source}  was not tested"
    if by[Status.FAILED]:
        rest = len(by[Status.NOT_REACHED])
        behind = f", so {plural(rest, 'step')} behind it could not be reached" if rest else ""
        return f"{source}  can't be used: {by[Status.FAILED][0]} failed{behind}"
    notes = f", with {plural(len(by[Status.WARNING]), 'note')}" if by[Status.WARNING] else ""
    return f"{source}  can be used{notes} ({sum(step.seconds for step in found):.1f} s)"


def _steps(found: Sequence[Step]) -> list[Mapping[str, Any]]:
    return [{**dataclasses.asdict(step), "status": step.status.value} for step in found]
