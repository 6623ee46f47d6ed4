"""Exceptions of tasks as the launcher may raise them: nothing in them acts on the terminal they end on.

Python shows an uncaught exception as it is. What a task on another machine raised must not reach a terminal like that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hsm_core.exceptions import TaskError
from hsm_core.text import inert


def harmless(error: BaseException) -> BaseException:
    """The exception with its texts escaped where a terminal would act upon them, all else as it was.

    A TaskError with its text stands in for one that can't be changed so.
    """
    _escape(error)
    if all(text == inert(text) for text in _shown(error)):
        return error
    cls = type(error)
    return TaskError(inert(f"{cls.__module__}.{cls.__qualname__}: {_text(error)}"))


def _escape(error: BaseException) -> None:
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes[:] = [_inert(note) for note in notes]
    if _text(error) != inert(_text(error)):
        error.args = tuple(_inert(argument) for argument in error.args)
    for inner in _inner(error):
        _escape(inner)


def _shown(error: BaseException) -> Iterator[str]:
    """All that Python shows of an exception, but for its traceback."""
    cls = type(error)
    yield from (cls.__module__, cls.__qualname__, _text(error))
    if isinstance(error, SyntaxError):
        yield from (text for text in (error.filename, error.text) if isinstance(text, str))
    yield from (str(note) for note in getattr(error, "__notes__", None) or ())
    for inner in _inner(error):
        yield from _shown(inner)


def _inner(error: BaseException) -> tuple[Any, ...]:
    """The exceptions in an ExceptionGroup."""
    inner = getattr(error, "exceptions", ())
    return tuple(one for one in inner if isinstance(one, BaseException)) if isinstance(inner, tuple) else ()


def _inert(value: Any) -> Any:
    return inert(value) if isinstance(value, str) else value


def _text(error: BaseException) -> str:
    with contextlib.suppress(Exception):  # a __str__ of the app's may raise anything; Python says so in its place
        return str(error)
    return ""
