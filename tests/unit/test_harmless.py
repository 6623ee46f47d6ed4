"""Exceptions of tasks lose what a terminal would act upon, and nothing else."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import pytest

from hsm_core.exceptions import TaskError
from hsm_core.harmless import harmless
from hsm_core.text import inert

EVIL = "\x1b]0;evil\x07 \x9b31m \x00 \u202e \r over"
ESCAPED = r"\x1b]0;evil\x07 \x9b31m \x00 \u202e \r over"


class Odd(Exception):
    """Its text is not made of its arguments alone."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError(EVIL)


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("ünïcödé 🦆\n\ttabbed\r\n"),
        KeyError("\x1b"),
        UnicodeDecodeError("utf-8", b"\x1b\xff", 1, 2, "invalid start byte"),
        OSError(2, "No such file", "a"),
        Odd("fine"),
        Broken(),
        ValueError(1, {"a": "\x1b"}, "\x1b"),
        ValueError("half of a pair: \ud800"),
    ],
)
def test_what_does_no_harm_stays_as_it_is(error: BaseException) -> None:
    args, before = error.args, shown(error)
    assert harmless(error) is error
    assert error.args == args
    assert shown(error) == before


def test_a_text_is_escaped_and_the_rest_stays() -> None:
    error = ValueError(EVIL)
    error.code = 7  # type: ignore[attr-defined]
    assert harmless(error) is error
    assert error.args == (ESCAPED,)
    assert error.code == 7  # type: ignore[attr-defined]


def hostile_class() -> BaseException:
    error: BaseException = type("Bad\x1b[2J", (Exception,), {})("text")
    return error


def hostile_module() -> BaseException:
    error: BaseException = type("Bad", (Exception,), {"__module__": "m\x1b[2J"})("text")
    return error


@pytest.mark.parametrize(
    "make",
    [
        lambda: Odd(EVIL),
        lambda: OSError(2, EVIL, EVIL),
        lambda: SyntaxError("no", ("\x1b[2J", 1, 1, "x = 1")),
        lambda: SyntaxError("no", ("a.py", 1, 1, "x = \x1b[2J")),
        hostile_class,
        hostile_module,
    ],
)
def test_one_that_can_not_be_changed_is_stood_in_for(make: Callable[[], BaseException]) -> None:
    error = harmless(make())
    assert isinstance(error, TaskError)
    assert shown(error) == inert(shown(error))


if sys.version_info >= (3, 11):  # before that there were neither notes nor groups
    from builtins import ExceptionGroup

    def test_notes_and_groups() -> None:
        noted = ValueError("fine")
        noted.add_note(EVIL)
        assert harmless(noted) is noted
        assert noted.__notes__ == [ESCAPED]
        evil = ValueError(EVIL)
        group = ExceptionGroup("fine", [evil, ExceptionGroup("fine", [noted, KeyError(1)])])
        assert harmless(group) is group
        assert evil.args == (ESCAPED,)
        assert isinstance(harmless(ExceptionGroup(EVIL, [noted])), TaskError)
        assert isinstance(harmless(ExceptionGroup("fine", [Odd(EVIL)])), TaskError)
