"""A sweep as tables: from figures and recent lines to what rich draws. Nothing here reads or prints."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hsm_core.event_text import Line
from hsm_core.summary import Figures, SourceFigures, eta_words, queue_words, status_words
from hsm_core.text import clock, plural, printable

_HEALTH_STYLES = {"healthy": "green", "unknown": "yellow", "disabled": "red"}
_STATUS_STYLES = {"running": "cyan", "finished": "green"}
_BAR_WIDTH = 30


def screen(now: Figures, recent: Sequence[tuple[float, Line]], interval: float | None) -> RenderableType:
    """All of the live view. `recent` is times (seconds since 1970) and lines; `interval` None: it is not live."""
    return Group(
        heading(now, interval),
        Text("Overall Progress:"),
        progress_table(now),
        Text("\nSource Utilization:"),
        source_table(now.sources),
        *(Text(line) for line in queue_lines(now.sources)),
        Text("\nRecent Activity:"),
        *(activity(at, line) for at, line in recent),
    )


def heading(now: Figures, interval: float | None) -> RenderableType:
    """Which sweep this is, and how to leave the view."""
    lines = [f"Sweep Monitor - {printable(now.id) or '(starting)'}"]
    if interval is not None:
        lines.append(f"Live updates every {interval:g}s - press Ctrl-C to leave; the sweep goes on")
    return Panel(Text("\n".join(lines)), expand=False)


def progress_table(now: Figures) -> Table:
    """The sweep in figures."""
    table = Table("Metric", "Value")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(now.total, 1), completed=now.ended, width=_BAR_WIDTH),
        Text(f"{now.ended}/{now.total} ({now.fraction:.0%})"),
    )
    table.add_row("Status", Text(status_words(now), style=_STATUS_STYLES.get(now.status, "yellow")))
    table.add_row("Progress", bar)
    table.add_row("Completed", plural(now.completed, "task"))
    table.add_row("Failed", Text(plural(now.failed, "task"), style="red" if now.failed else ""))
    table.add_row("Active", plural(now.active, "task"))
    table.add_row("Pending", plural(now.pending, "task"))
    table.add_row("Success Rate", "-" if now.success_rate is None else f"{now.success_rate:.1%}")
    table.add_row("ETA", eta_words(now) or "-")
    return table


def source_table(sources: Sequence[SourceFigures]) -> Table:
    """A row for every source."""
    table = Table("Source", "Active", "Completed", "Failed", "Health Status")
    for source in sources:
        health = source.health.capitalize()
        if source.reason:
            health = f"{health}: {printable(source.reason, 60)}"
        table.add_row(
            Text(printable(source.name)),
            f"{source.active}/{source.slots}",
            str(source.completed),
            str(source.failed),
            Text(health, style=_HEALTH_STYLES[source.health]),
        )
    return table


def queue_lines(sources: Sequence[SourceFigures]) -> list[str]:
    """A line for every source that has jobs in a scheduler."""
    return [f"{printable(source.name)}: {words}" for source in sources if (words := queue_words(source))]


def activity(at: float, line: Line) -> Text:
    """One line of what happened lately."""
    style = "red" if line.level >= logging.ERROR else "yellow" if line.level >= logging.WARNING else ""
    return Text(f"[{clock(at)}] {line.text}", style=style, no_wrap=True, overflow="ellipsis")
