"""Errors and return values as plain JSON, whatever strange objects they are."""

from __future__ import annotations

import json
import math
import traceback
from types import TracebackType
from typing import Any

REPORT_LIMIT = 1 << 20
"""bytes of JSON that an error or a return value is kept below: a record is read by the launcher"""
_MESSAGE_LIMIT, _TEXT_LIMIT = 10_000, 70_000
"""characters of a message and of a traceback that are kept; each is 12 bytes of JSON at most"""
_DEPTH_LIMIT = 50
_SIZE_LIMIT = 800_000
"""bytes of JSON that a return value may have"""
_INT_LIMIT = 4096
"""bits of an integer: Python refuses to write and read very long ones as text"""
_HIDDEN = ("hsm_core.remote.", "hydra._internal.", "hydra.core.utils")


def message(exception: BaseException) -> str:
    """`str(exception)`, also where that raises; a very long one is cut."""
    return _cut(_words(exception), _MESSAGE_LIMIT)


def _words(exception: BaseException) -> str:
    try:
        return str(exception)
    except BaseException as e:  # the app's __str__ may raise anything
        return f"<the message of this {type(exception).__name__} can't be shown: {type(e).__name__}>"


def _cut(text: str, limit: int) -> str:
    """At most about `limit` characters of a text: its beginning and its end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters are left out ... {text[-half:]}"


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
        "module": str(type(exception).__module__),
        "message": message(exception),
        "args": _arguments(exception),
        "frames": _frames(exception.__traceback__),
        "chain": _chain(exception, seen),
    }
    if len(seen) == 1:
        out["traceback"] = _formatted(exception)
        for key, nothing in (("chain", None), ("args", None), ("frames", [])):
            if len(json.dumps(out)) <= REPORT_LIMIT:
                break
            out[key] = nothing
    return out


def text(exception: BaseException) -> dict[str, Any]:
    """An error whose own text is the whole story, as the traceback of the app inside it."""
    words = _words(exception)
    return {
        "type": type(exception).__qualname__,
        "module": type(exception).__module__,
        "message": _cut(words.splitlines()[0], _MESSAGE_LIMIT),
        "args": None,
        "frames": [],
        "chain": None,
        "traceback": _cut(words, _TEXT_LIMIT),
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
    return _cut("".join(lines).rstrip(), _TEXT_LIMIT)


def plain(value: Any) -> tuple[Any, bool]:
    """A value as JSON, and whether reading that back gives exactly the value.

    Numbers of other kinds (numpy's) become Python's; what has no likeness in JSON, and what is
    beyond `_SIZE_LIMIT`, becomes its type's name in angle brackets.
    """
    budget = [_SIZE_LIMIT]
    return _plain(value, _DEPTH_LIMIT, budget)


def _plain(value: Any, depth: int, budget: list[int]) -> tuple[Any, bool]:
    kind = type(value)
    budget[0] -= _size(value, kind, budget[0])
    if depth == 0 or budget[0] < 0 or (kind is int and value.bit_length() > _INT_LIMIT):
        return f"<{kind.__name__}>", False
    if value is None or kind in (bool, int, float, str):
        return value, kind is not str or _encodable(value)
    if kind in (list, tuple):
        items = [_plain(item, depth - 1, budget) for item in value]
        return [item for item, _ in items], kind is list and all(exact for _, exact in items)
    if kind is dict:
        pairs = {_key(k, budget): _plain(v, depth - 1, budget) for k, v in value.items()}
        exact = all(type(k) is str for k in value) and all(e for _, e in pairs.values())
        return {k: v for k, (v, _) in pairs.items()}, exact
    return _number(value, kind.__name__), False


def _size(value: Any, kind: type, left: int) -> int:
    """Bytes of JSON that a value takes beside those of its elements, or more than `left`."""
    if kind is str:
        return len(value) if len(value) > left else len(json.dumps(value)) + 2
    # A bit takes less than a third of a digit; the longest floats have 24 characters.
    return value.bit_length() // 3 + 4 if kind is int else 26 if kind is float else 7


def _key(key: Any, budget: list[int]) -> str:
    try:
        text = str(key)
    except Exception:  # the app's __str__ may raise anything
        text = f"<{type(key).__name__}>"
    budget[0] -= _size(text, str, budget[0])
    return text if budget[0] >= 0 else f"<{type(key).__name__}>"


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
