"""`hsm sources`: look at the places that run tasks."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from hsm_core.cli.group import HsmGroup
from hsm_core.cli.output import Names, Output, output_options

if TYPE_CHECKING:
    from hsm_core.selection import Selected
    from hsm_core.sources.ping import Ping
    from hsm_core.sources.settings import Setting
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
    took = f"  ({step.seconds:.1f} s)" if step.seconds >= 1 else ""
    return _hanging(f"{source}  {step.name:<11} {word:<8}  ", f"{step.told}{took}")


def _hanging(head: str, text: str) -> list[str]:
    """The text behind its head, further lines below its beginning; on a terminal none is too long."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = [piece for line in text.split("\n") for piece in _wrapped(line, width - len(head))]
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


@sources.command()
@click.argument("source")
@click.option("--verbose", "-v", is_flag=True, help="Say of each setting where it comes from.")
@_config
@output_options
@click.pass_context
def validate(ctx: click.Context, output: Output, source: str, verbose: bool, file: str | None) -> None:
    """Show what hsm will use for SOURCE (server1, or ssh:server1), without connecting to anything.

    Exit code 1 where something is wrong with it, as far as that shows here.
    """
    from hsm_core.config.load import load
    from hsm_core.selection import select
    from hsm_core.sources.settings import settings

    config = load({"config_file": file}, cwd=Path.cwd())
    selected = select(source, config.compute_sources)
    found = {one.name: list(settings(one, config.config_file)) for one in selected}
    wrong = [name for name, own in found.items() if any(setting.problem for setting in own)]
    data = [
        {
            "source": one.name,
            "type": one.config.type,
            "valid": one.name not in wrong,
            "settings": [dataclasses.asdict(setting) for setting in found[one.name]],
        }
        for one in selected
    ]
    lines = [line for one in selected for line in _setting_lines(one, found[one.name], verbose)]
    output.show(data, Names([name for name in found if name not in wrong]), *lines)
    ctx.exit(1 if wrong else 0)


def _setting_lines(one: Selected, found: Sequence[Setting], verbose: bool) -> Iterator[str]:
    yield f"{one.name} ({one.config.type})"
    width = max((len(setting.name) for setting in found), default=0)
    for setting in found:
        origin = f"  [{setting.origin}]" if verbose else ""
        yield from _hanging(f"  {setting.name.ljust(width)}  ", f"{setting.value}{origin}")
        if setting.problem:
            yield from _hanging(" " * (width + 4), f"PROBLEM: {setting.problem}")


@sources.command()
@_named
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="Requests to each source.")
@output_options
@click.pass_context
def ping(ctx: click.Context, output: Output, names: tuple[str, ...], every: bool, file: str | None, count: int) -> None:
    """Tell whether the sources NAMES are within reach now, how far they are, and how busy.

    Needs neither Python nor hsm there, and leaves nothing. Exit code 1 when one is out of reach. --quiet prints the
    names of those within reach.
    """
    from hsm_core.sources.ping import pinging
    from hsm_core.sources.steps import at_once

    selected = _selected(names, every, file)
    width = max(len(one.name) for one in selected)
    found: dict[str, Ping] = {}
    for name, one in at_once(pinging(count), selected):
        found[name] = one
        for line in _hanging(f"{name.ljust(width)}  ", _ping_words(one)):
            output.tell(line)
    reached = [one.name for one in selected if found[one.name].reachable]
    data = [{"source": one.name, "type": one.config.type, **dataclasses.asdict(found[one.name])} for one in selected]
    output.show(data, Names(reached))
    ctx.exit(1 if any(one.reachable is False for one in found.values()) else 0)


def _ping_words(one: Ping) -> str:
    import statistics

    if not one.reachable:
        first, _, more = one.problem.partition(". ")
        hint = "; hsm sources test says what to do" if more else ""
        return f"{'untested' if one.reachable is None else 'OUT OF REACH':<15}  {first}{hint}"
    least, most, median = min(one.round_trips), max(one.round_trips), statistics.median(one.round_trips)
    connect = " " * 15 if one.connect is None else f"connect {one.connect:4.0f} ms"
    load = "" if one.load is None else f"  load {one.load:.2f} a core"
    return f"{connect}  round trip {least:.1f} / {median:.1f} / {most:.1f} ms (min / median / max){load}"
