"""Text on its way to people: nothing in it acts on a terminal, and no name leaves its folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.text import duration, file_name, plural, printable, printable_lines, size

# Control, line and paragraph separators, halves of surrogate pairs.
ACTING = ("Cc", "Zl", "Zp", "Cs")


@given(st.text(st.characters(codec=None)))
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in ACTING]
    shown.encode("utf-8")


@given(st.text(st.characters(categories=("L", "N", "P", "Zs"))))
def test_readable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_escape_sequences_are_shown() -> None:
    assert printable("\x1b]0;evil\x07 \x9b31m \r\n\t ab\u202ecd") == "\\x1b]0;evil\\x07 \\x9b31m \\r\\n\\t ab\\u202ecd"


def test_a_limit_tells_what_is_left_out() -> None:
    assert printable("x" * 30, limit=10) == "xxxxxxxxxx... (20 characters more)"
    assert printable("x" * 10, limit=10) == "x" * 10


def test_lines_stay_lines() -> None:
    assert printable_lines("a\tb\r\nc\x1b[0m\n") == "a       b\nc\\x1b[0m\n"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", ".", "", "a/b", "a\\b", "\0", "-rf", "ä" * 500, "a\nb", "%2e"]
)
def test_a_name_names_a_file_in_its_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{file_name(name)}.log"
    path.write_text("x")
    assert path.resolve().parent == tmp_path.resolve()


def test_different_names_stay_different() -> None:
    names = ["a/b", "a%2Fb", "a_b", ".a", "%2Ea"]
    assert len({file_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (3.24, "3.2s"),
        (59.94, "59.9s"),
        (59.97, "1m 00s"),
        (245, "4m 05s"),
        (8100, "2h 15m"),
        (3 * 86400 + 14400, "3d 04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (312 * 1024 + 5, "312 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (int(5.2 * 1024**3), "5.2 GiB"),
        (4096 * 1024**5, "4096 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_plural() -> None:
    assert [plural(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
