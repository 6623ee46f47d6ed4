"""Errors and return values as plain JSON, whatever strange objects they are."""

from __future__ import annotations

import math
import traceback
from types import TracebackType
from typing import Any

_TEXT_LIMIT = 200_000
"""characters of a traceback that are kept"""
_DEPTH_LIMIT = 50
_SIZE_LIMIT = 100_000
"""elements of a return value that are looked at"""
_INT_LIMIT = 4096
"""bits of an integer: Python refuses to write and read very long ones as text"""
_HIDDEN = ("hsm_core.remote.", "hydra._internal.", "hydra.core.utils")


def message(exception: BaseException) -> str:
    """`str(exception)`, also where that raises."""
    try:
        return str(exception)
    except BaseException as e:  # the app's __str__ may raise anything
        return f"<the message of this {type(exception).__name__} can't be shown: {type(e).__name__}>"


def failure(exception: BaseException) -> dict[str, Any]:
    """The `cause`, `message` (one line) and `error` of a result record for an exception."""
    words = message(exception).strip()
    name = type(exception).__name__
    return {
        "cause": "oom" if isinstance(exception, MemoryError) else "error",
        "message": f"{name}: {words.splitlines()[0]}" if words else name,
        "error": error(exception),
    }


def error(exception: BaseException, seen: frozenset[int] = frozenset()) -> dict[str, Any]:
    """An exception with its chain: type, message, traceback as text and as frames."""
    seen |= {id(exception)}
    out = {
        "type": type(exception).__qualname__,
        "module": type(exception).__module__,
        "message": message(exception)[:_TEXT_LIMIT],
        "args": _arguments(exception),
        "frames": _frames(exception.__traceback__),
        "chain": _chain(exception, seen),
    }
    if len(seen) == 1:
        out["traceback"] = _formatted(exception)
    return out


def text(exception: BaseException) -> dict[str, Any]:
    """An error whose own text is the whole story, as the traceback of the app inside it."""
    words = message(exception)
    return {
        "type": type(exception).__qualname__,
        "module": type(exception).__module__,
        "message": words.splitlines()[0],
        "args": None,
        "frames": [],
        "chain": None,
        "traceback": words[:_TEXT_LIMIT],
    }


def _arguments(exception: BaseException) -> list[Any] | None:
    """The exception's arguments, where JSON holds them exactly."""
    arguments, exact = plain(list(exception.args))
    return arguments if exact else None


def rebuild(cls: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """An exception as it was, without a call of its class: that may want other arguments than `args`."""
    exception: BaseException = cls.__new__(cls, *arguments)
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    builtin.__init__(exception, *arguments)
    exception.__dict__.update(state)
    return exception


def _chain(exception: BaseException, seen: frozenset[int]) -> dict[str, Any] | None:
    relation, other = "cause", exception.__cause__
    if other is None and not exception.__suppress_context__:
        relation, other = "context", exception.__context__
    if other is None or id(other) in seen or len(seen) > _DEPTH_LIMIT:
        return None
    return {"relation": relation, **error(other, seen)}


def _frames(tb: TracebackType | None) -> list[list[Any]]:
    frames: list[list[Any]] = []
    while tb is not None:
        code = tb.tb_frame.f_code
        frames.append([code.co_filename, code.co_name, tb.tb_lineno])
        tb = tb.tb_next
    return frames


def _formatted(exception: BaseException) -> str:
    """The traceback from the app's first frame on, as text."""
    tb = exception.__traceback__
    while tb is not None and str(tb.tb_frame.f_globals.get("__name__", "")).startswith(_HIDDEN):
        tb = tb.tb_next
    try:
        lines = traceback.format_exception(type(exception), exception, tb or exception.__traceback__)
    except BaseException as e:  # the app's __str__ may raise anything
        lines = [f"<the traceback can't be shown: {type(e).__name__}>\n"]
    return "".join(lines).rstrip()[-_TEXT_LIMIT:]


def plain(value: Any) -> tuple[Any, bool]:
    """A value as JSON, and whether reading that back gives exactly the value.

    Numbers of other kinds (numpy's) become Python's; what has no likeness in JSON becomes its
    type's name in angle brackets.
    """
    budget = [_SIZE_LIMIT]
    return _plain(value, _DEPTH_LIMIT, budget)


def _plain(value: Any, depth: int, budget: list[int]) -> tuple[Any, bool]:
    budget[0] -= 1
    kind = type(value)
    if kind is int and value.bit_length() > _INT_LIMIT:
        return f"<{kind.__name__}>", False
    if value is None or kind in (bool, int, float, str):
        return value, kind is not str or _encodable(value)
    if depth == 0 or budget[0] < 0:
        return f"<{kind.__name__}>", False
    if kind in (list, tuple):
        items = [_plain(item, depth - 1, budget) for item in value]
        return [item for item, _ in items], kind is list and all(exact for _, exact in items)
    if kind is dict:
        pairs = {_key(k): _plain(v, depth - 1, budget) for k, v in value.items()}
        exact = all(type(k) is str for k in value) and all(e for _, e in pairs.values())
        return {k: v for k, (v, _) in pairs.items()}, exact
    return _number(value, kind.__name__), False


def _key(key: Any) -> str:
    try:
        return str(key)
    except Exception:  # the app's __str__ may raise anything
        return f"<{type(key).__name__}>"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Any, name: str) -> Any:
    try:
        if isinstance(value, (int, float, str)):
            return next(base(value) for base in (int, float, str) if isinstance(value, base))
        if getattr(value, "shape", None) == () or getattr(value, "size", None) == 1:
            number = float(value)
            return (
                int(number) if math.isfinite(number) and number.is_integer() and "int" in str(value.dtype) else number
            )
    except Exception:  # an object that looks like a number and raises is none
        return f"<{name}>"
    return f"<{name}>"
