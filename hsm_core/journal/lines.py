"""All that stands between an event and its line in the journal; pure.

Reading has a quick way, for whole blocks of lines as we write them, and a careful one for a single
line which that does not take: of a later version, damaged, or such as only the standard JSON reader reads.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias, Union

import msgspec

from hsm_core.events import KINDS, Event

Line: TypeAlias = Any
"""An event of one of `KINDS` as it was read: with `seq`, its number, and `t`, its time. It equals the bare event.

For a kind that is not known it is an `Unknown`, which is no event.
"""

_DEEPEST = 100  # levels of nesting; far below what the JSON readers can take
_LONGEST_INT = 10_000  # bits; much longer ones can't be read back as decimals
_Time = Annotated[float, msgspec.Meta(ge=0, lt=253402300800)]
"""seconds since 1970, up to the year 9999, which is what dates can hold"""


class Unknown(msgspec.Struct, gc=False):
    """The line of an event that this version does not know."""

    kind: ClassVar[str] = ""
    seq: int
    t: _Time


def _bare(line: Line) -> Event:
    return msgspec.convert(line, KINDS[line.kind], from_attributes=True)


def _line(kind: type[Event]) -> type[msgspec.Struct]:
    """The class of the lines that hold such an event."""
    equality = {
        "__eq__": lambda line, other: _bare(line) == other,
        "__ne__": lambda line, other: _bare(line) != other,
    }
    head = [("seq", int), ("t", _Time)]
    return msgspec.defstruct(kind.__name__, head, bases=(kind,), kw_only=True, namespace=equality)


_LINES = {kind: _line(cls) for kind, cls in KINDS.items()}
_WRITER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_QUICK_WRITER = msgspec.json.Encoder()
_QUICK_READER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Union[tuple(_LINES.values())])  # noqa: UP007
_EVENT_READER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Union[tuple(KINDS.values())])  # noqa: UP007


def encode(seq: int, micros: int, event: Event) -> bytes:
    """The line of an event: pure ASCII, and read back as this event. `micros` are microseconds since 1970.

    What JSON can't hold becomes text. Raises ValueError where a field is not of its type.
    """
    body = _exact(event) or _approximate(event)
    whole, rest = divmod(micros, 1_000_000)
    # The kind stands first: a reader that knows it reads the rest in one go.
    kind, comma, fields = body[:-1].partition(b",")
    return b'%s,"seq":%d,"t":%d.%06d%s%s}\n' % (kind, seq, whole, rest, comma, fields)


def decode_block(block: bytes, seq: int) -> Sequence[Line] | None:
    """The lines of a block, numbered from `seq` on; None where they are not, or one needs a closer look."""
    try:
        lines = _QUICK_READER.decode_lines(block)
    except (ValueError, RecursionError):
        return None
    # That reader minds no line ends: it takes two records on a line, or one on two. `count` is four times as slow here.
    ends = len(block) - len(block.replace(b"\n", b""))
    if ends != len(lines) or not block.endswith(b"\n"):
        return None
    return lines if [line.seq for line in lines] == [*range(seq, seq + len(lines))] else None


def decode(raw: bytes) -> dict[str, Any] | None:
    """The JSON object of a single line; None for what is no record: unfinished or garbage."""
    if not raw.endswith(b"\n"):
        return None
    try:
        data = json.loads(str(raw, "utf-8"))
    except (ValueError, RecursionError):
        return None
    if type(data) is not dict or type(data.get("seq")) is not int or type(data.get("t")) not in (int, float):
        return None
    return data if type(data.get("event")) is str else None


def line_of(data: Mapping[str, Any]) -> Line:
    """The line that `decode` found, with its event. Fields which this version does not know are ignored.

    Raises ValueError where a known event lacks a field or holds one of the wrong type, and for a time that is none.
    """
    return msgspec.convert(data, _LINES.get(data["event"], Unknown))


def _exact(event: Event) -> bytes | None:
    """The event as JSON; None where that would not be ASCII, be too deep to be read, or tell something else."""
    try:
        body = _QUICK_WRITER.encode(event)
        if not body.isascii() or body.count(b"[") + body.count(b"{") > _DEEPEST:
            return None
        return body if _EVENT_READER.decode(body) == event else None
    except (ValueError, TypeError, RecursionError):
        return None


def _approximate(event: Event) -> bytes:
    data = {"event": event.kind, **_plain(event)}
    try:
        msgspec.convert(data, KINDS[event.kind])
    except ValueError as e:
        raise ValueError(f"the event '{event.kind}' is not as it must be ({e})") from e
    return _WRITER.encode(data).encode("ascii")


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """The value as JSON that every reader takes; what JSON can't hold becomes text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _LONGEST_INT else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, os.PathLike):
        return _plain(os.fspath(value))
    if id(value) in above or len(above) >= _DEEPEST:
        return "..."
    above = (*above, id(value))
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
        return {name: _plain(field, above) for name, field in fields.items() if field is not None}
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(_plain(k, above)): _plain(v, above) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, above) for item in value]
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
