"""The one output interface: the same result as text, as JSON, as names."""

from __future__ import annotations

import json

import pytest
import rich_click as click
from click.testing import CliRunner

from hsm_core.cli.output import Column, JsonOutput, Output, QuietOutput, Table, TextOutput, output_options

COLUMNS = (Column("id", "Sweep"), Column("rate", "Rate", lambda rate: f"{rate:.0%}", right=True))
ROWS = [{"id": "a", "rate": 0.5, "hidden": 1}, {"id": "b\x1b[2J[red]", "rate": 1.0}]
TABLE = Table(COLUMNS, ROWS, "All [of] them")


@pytest.fixture(params=[TextOutput(), JsonOutput(), QuietOutput()], ids=["text", "json", "quiet"])
def output(request: pytest.FixtureRequest) -> Output:
    chosen: Output = request.param
    return chosen


def test_text_has_titles_headers_formatted_cells_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    TextOutput().show(ROWS, TABLE, "2 sweeps\x1b[2J")
    text = capsys.readouterr().out
    for fact in ("All [of] them", "Sweep", "50%", "100%", "2 sweeps\\x1b[2J"):
        assert fact in text
    assert "hidden" not in text


def test_json_is_the_data_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    JsonOutput().show(ROWS, TABLE, "2 sweeps")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == ROWS


def test_quiet_is_the_names_of_the_first_table(capsys: pytest.CaptureFixture[str]) -> None:
    QuietOutput().show(ROWS, "before", TABLE, Table(COLUMNS, ROWS))
    assert capsys.readouterr().out == "a\nb\\x1b[2J[red]\n"


def test_no_rendering_lets_escape_sequences_through(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    output.show(ROWS, TABLE, "line \x07")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_piped_tables_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    TextOutput().show([], Table((Column("id", "Sweep"),), [{"id": "x" * 500}]))
    assert "x" * 500 in capsys.readouterr().out


def test_a_very_long_table_is_one_aligned_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "\u6f22\x1b", "rate": 1.0}, *({"id": f"task_{number}", "rate": 0.05} for number in range(2000))]
    TextOutput().show([], Table(COLUMNS, rows, "All"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["All", "Sweep      Rate", "\u6f22\\x1b     100%", "task_0       5%"]
    assert len(lines) == 2003


@click.command()
@output_options
def show(output: Output) -> None:
    output.show({"n": 1}, "one")


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [([], 0, "one\n"), (["--json"], 0, '{"n": 1}\n'), (["-q"], 0, ""), (["--json", "--quiet"], 2, "")],
)
def test_options_choose_the_rendering(arguments: list[str], code: int, out: str) -> None:
    result = CliRunner().invoke(show, arguments)
    assert (result.exit_code, result.stdout) == (code, out)
