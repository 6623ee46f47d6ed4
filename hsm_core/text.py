"""How text is shown to people: escaped, shortened, and with times in words.

Whatever a task, a host or a user hands in goes through `printable` or `printable_lines` before it
reaches a terminal or a log, so that no escape sequence of theirs is ever acted upon.
"""

from __future__ import annotations

import re
import time

# Control characters (C0, DEL, C1), line separators, characters that reorder the text around
# them, and halves of surrogate pairs, which can't be encoded.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_ACTING = re.compile(f"\r(?!\n)|(?![\t\r\n\ud800-\udfff]){_UNSAFE.pattern}")


def printable(text: str, limit: int | None = None) -> str:
    """The text as one line without control characters; each becomes an escape such as `\\x1b` or `\\n`.

    With `limit`, at most that many of its characters are kept; what is left out is told.
    """
    if limit is not None and len(text) > limit:
        return f"{printable(text[:limit])}... ({len(text) - limit} characters more)"
    return _UNSAFE.sub(_escaped, text)


def inert(text: str) -> str:
    """As `printable`, but line ends and tabs stay as they are: for text that programs may look at too."""
    return _ACTING.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """As `printable`, but line ends stay line ends and tabs become spaces."""
    return "\n".join(printable(line.removesuffix("\r").expandtabs()) for line in text.split("\n"))


def file_name(name: str) -> str:
    """The name as one that can only name a file in the folder it is put in.

    Path separators, control characters and a leading dot become `%XX`.
    """
    safe = re.sub(r"[/\\%:\x00-\x1f\x7f]|^\.", lambda m: f"%{ord(m[0]):02X}", name)
    return printable(safe)[:100] or "%"


def duration(seconds: float) -> str:
    """A duration for people: `3.2s`, `4m 05s`, `2h 15m`, `3d 04h`."""
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def size(count: int) -> str:
    """A number of bytes for people: `0 B`, `312 KiB`, `5.2 GiB`."""
    number, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1023.5:
            break
        number, unit = number / 1024, bigger
    return f"{number:.1f} {unit}" if number < 10 and unit != "B" else f"{number:.0f} {unit}"


def stamp(at: float) -> str:
    """A time (seconds since 1970) as local date and time: `2026-01-15 14:30:22`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def clock(at: float) -> str:
    """A time (seconds since 1970) as local time of day: `14:30:22`."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
