"""What the commands print: one interface, rendered as text, as JSON or as bare names."""

from __future__ import annotations

import functools
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich_click as click

from hsm_core.text import printable, printable_lines

_PIPE_WIDTH = 100_000
_MOST_DRAWN = 1000
"""rows of a table that rich draws, at half a millisecond each; a longer one is only aligned"""


@dataclass(frozen=True)
class Column:
    """One column of a table. `text` makes a row's value readable; whatever it returns is escaped."""

    key: str
    header: str
    text: Callable[[Any], str] = str
    right: bool = False


@dataclass(frozen=True)
class Names:
    """What `--quiet` prints where it is not the names of a table. Nobody else does."""

    names: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; the first column names the row."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""


class Output(ABC):
    """Where a command's result goes. Errors and questions never come here."""

    @abstractmethod
    def show(self, data: Any, *parts: Table | str | Names) -> None:
        """Print one result: `data` (JSON) is all of it for programs, `parts` are the same for people."""

    def tell(self, line: str) -> None:  # noqa: B027 - programs wait for the result
        """Tell people, while they wait, of what is part of the result that is yet to come."""


class TextOutput(Output):
    """Tables and lines. Piped into something they are as wide as they need to be, and so are very long tables."""

    def tell(self, line: str) -> None:
        self.show(None, line)

    def show(self, data: Any, *parts: Table | str | Names) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
        for part in parts:
            if isinstance(part, Names):
                continue
            if isinstance(part, str):
                console.print(Text(printable_lines(part)), soft_wrap=True)
            elif len(part.rows) > _MOST_DRAWN:
                for line in _aligned(part):
                    click.echo(line)
            else:
                console.print(_rich_table(part))


class JsonOutput(Output):
    """One JSON document a line."""

    def show(self, data: Any, *parts: Table | str | Names) -> None:
        click.echo(json.dumps(data))


class QuietOutput(Output):
    """The names only, a line each: those that are given, or else the first column of the first table."""

    def show(self, data: Any, *parts: Table | str | Names) -> None:
        for given in [part for part in parts if isinstance(part, Names)][:1]:
            for one in given.names:
                click.echo(printable(one))
            return
        for table in [part for part in parts if isinstance(part, Table)][:1]:
            name = table.columns[0]
            for row in table.rows:
                click.echo(printable(name.text(row[name.key])))


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json` and `--quiet`, and the `output` they choose as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.option("--quiet", "-q", is_flag=True, help="Print names only, one a line.")
    @functools.wraps(command)
    def with_output(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> None:
        if as_json and quiet:
            raise click.UsageError("--json and --quiet exclude each other")
        output = JsonOutput() if as_json else QuietOutput() if quiet else TextOutput()
        command(output, *args, **kwargs)

    return with_output


def _aligned(table: Table) -> Iterator[str]:
    """The table with two spaces between its columns, a line for each row."""
    from rich.cells import cell_len

    heads = [column.header for column in table.columns]
    cells = [[printable(column.text(row[column.key])) for column in table.columns] for row in table.rows]
    lengths = [[cell_len(cell) for cell in row] for row in (heads, *cells)]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    if table.title:
        yield printable(table.title)
    for row, taken in zip((heads, *cells), lengths, strict=True):
        padded = []
        for column, cell, width, own in zip(table.columns, row, widths, taken, strict=True):
            room = " " * (width - own)
            padded.append(room + cell if column.right else cell + room)
        yield "  ".join(padded).rstrip()


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    out = RichTable(title=Text(printable(table.title)) if table.title else None, title_justify="left")
    for column in table.columns:
        out.add_column(Text(column.header), justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        out.add_row(*(Text(printable(column.text(row[column.key]))) for column in table.columns))
    return out
