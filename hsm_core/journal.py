"""The journal of a sweep: append, replay, tail.

One JSON object a line, only ever appended, by one writer. Readers follow by byte offset. Lines
are pure ASCII, so nothing a task hands in can break one. Entries are ordered by `seq`; `t` is
what the clock showed, and clocks jump. Plain reads, writes and renames only: right on NFS too.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import json
import math
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from hsm_core import __version__
from hsm_core.events import FORMAT, Event, SweepStarted, from_json, to_json
from hsm_core.exceptions import JournalError, SweepExists
from hsm_core.state import SweepState, apply

_DEEPEST = 100  # levels of nesting; far below what the JSON reader can take
_LONGEST_INT = 10_000  # bits; much longer ones can't be read back as decimals
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `at` is in seconds since 1970; `event` is None for a kind unknown to this version."""

    seq: int
    at: float
    event: Event | None


@dataclass(frozen=True)
class Replay:
    """What a journal adds up to: `seq` and `offset` (bytes) of the end of its last good record.

    `torn`: something unfinished follows that record.
    """

    state: SweepState
    seq: int
    offset: int
    torn: bool


class Journal:
    """The one writer of a journal. Not for several threads."""

    def __init__(self, fd: int, path: Path, seq: int, offset: int, cut: Path | None = None) -> None:
        self.path = path
        self.cut = cut
        """where `open` saved what it cut off, None if there was nothing"""
        self._fd = fd
        self._end = (seq, offset)
        self._ragged = False
        self._unsynced = seq == 0
        self._lost = False

    @classmethod
    def create(cls, path: Path) -> Journal:
        """Start an empty journal, readable by its owner only. Raises SweepExists when there is one, OSError."""
        try:
            fd = _new_file(path)
        except FileExistsError:
            raise SweepExists(f"{path} exists: there is a sweep already. Resume it, or start elsewhere.") from None
        _sync_directory(path.parent)
        return cls(fd, path, 0, 0)

    @classmethod
    def open(cls, path: Path, after: Replay) -> Journal:
        """Go on with a journal behind its last good record, as `replay` found it. Only the owner of the sweep may.

        What stands behind that record is first saved as `<path>.torn-<n>` (see `cut`). The good part becomes a
        new file under the old name: an earlier writer that wakes up again holds the old file, and what it
        still appends reaches nobody. Raises JournalError when the file is shorter than the replay, OSError.
        """
        for leftover in glob.glob(f"{glob.escape(str(path))}.*.new"):
            os.unlink(leftover)
        size = path.stat().st_size
        cut = _save_tail(path, after.offset, size) if size > after.offset else None
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        fd = _new_file(new)
        try:
            _copy(path, fd, 0, after.offset)
            os.rename(new, path)
        except BaseException:
            os.close(fd)
            new.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
        return cls(fd, path, after.seq, after.offset, cut)

    def append(self, event: Event) -> float:
        """Hand one event to the operating system, as a whole line; returns the time written (seconds since 1970).

        Raises OSError when it can't be written: then the journal is as before, and a later append may work.
        """
        if self._lost:
            raise OSError(errno.EIO, "an earlier sync failed; resume the sweep to go on", str(self.path))
        if self._ragged:
            self._trim()
        micros = time.time_ns() // 1000
        seq, offset = self._end
        line = _encode(seq + 1, micros, event)
        # Set over the whole write: an exception out of a signal handler leaves a line that nobody counted.
        self._ragged = True
        try:
            _write(self._fd, line)
        except OSError as e:
            with contextlib.suppress(OSError):  # then it stays ragged, and is trimmed before anything else is written
                self._trim()
            raise _named(e, self.path) from e
        self._end = (seq + 1, offset + len(line))
        self._ragged = False
        self._unsynced = True
        return micros / 1e6

    def sync(self) -> None:
        """Bring everything appended so far to the disk; does nothing when that is so.

        Raises OSError. Nobody can tell then which lines are safe, so every later append raises too.
        """
        if not self._unsynced:
            return
        try:
            os.fsync(self._fd)
        except OSError as e:
            self._lost = True
            raise _named(e, self.path) from e
        self._unsynced = False

    def close(self) -> None:
        """Sync and close; idempotent. Raises OSError as `sync` does, with the file closed."""
        if self._fd < 0:
            return
        try:
            if self._ragged:
                self._trim()
            if not self._lost:
                self.sync()
        finally:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _trim(self) -> None:
        os.ftruncate(self._fd, self._end[1])
        self._ragged = False


def replay(path: Path) -> Replay:
    """Read a journal from its first line and fold it.

    What a crash left unfinished at the end is not an error: it is left out, and `torn` is set. Raises JournalError
    when the journal is missing, holds no event, is damaged before its end, or is of a newer format than this version's.
    """
    state, reader, torn = SweepState(), _Reader(path), False
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for line in file:
            entry = reader.take(line)
            if entry is None:
                reader.check_torn(file)
                torn = True
            elif entry.event is not None:
                apply(state, entry.event, entry.at)
    if reader.seq == 0:
        raise _empty(path)
    return Replay(state, reader.seq, reader.offset, torn)


def started(path: Path) -> SweepStarted:
    """The first event of a journal, without reading the rest. Raises JournalError as `replay` does."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        entry = _Reader(path).take(file.readline())
        if entry is not None and isinstance(entry.event, SweepStarted):
            return entry.event
    raise _empty(path)


class Tail:
    """Follows a journal which another process writes, from its first line or from behind a replay of it."""

    def __init__(self, path: Path, after: Replay | None = None) -> None:
        self._reader = _Reader(path) if after is None else _Reader(path, after.seq, after.offset)

    def poll(self) -> list[Entry]:
        """The whole lines since the last poll; none while there is no file. Raises JournalError as `replay` does."""
        reader = self._reader
        try:
            # Opened for every poll: an NFS client then asks the server, and a resume may have put a new file there.
            with open(reader.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < reader.offset:
                    raise JournalError(f"The journal {reader.path} became shorter while it was read. Start this again.")
                file.seek(reader.offset)
                lines = file.readlines()
        except FileNotFoundError:
            return []
        entries = []
        for number, line in enumerate(lines):
            entry = reader.take(line)
            if entry is None:
                if b"\0" not in line:  # NULs are where NFS has not brought the bytes yet: they come
                    reader.check_torn(lines[number + 1 :])
                break
            entries.append(entry)
        return entries


class _Reader:
    """Where a reader stands in a journal. The number of a line is also its `seq`."""

    def __init__(self, path: Path, seq: int = 0, offset: int = 0) -> None:
        self.path = path
        self.seq = seq
        self.offset = offset

    def take(self, line: bytes) -> Entry | None:
        """Go one line on. None, and no step, for a line that is no record: unfinished or garbage."""
        data = _decode(line)
        if data is None:
            return None
        if data["seq"] != self.seq + 1:
            raise self.damaged(f"its seq is {data['seq']} where {self.seq + 1} must come")
        if self.seq == 0:
            self._check_first(data)
        try:
            entry = Entry(data["seq"], _seconds(data["t"]), from_json(data))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise self.damaged(f"its event '{data['event']}' is not as it must be ({e})") from e
        self.seq += 1
        self.offset += len(line)
        return entry

    def check_torn(self, later: Iterable[bytes]) -> None:
        """Raise JournalError when a record stands behind the unreadable line: then no crash tore it off."""
        if any(_decode(line) is not None for line in later):
            raise self.damaged("it can't be read, though lines behind it can")

    def damaged(self, why: str) -> JournalError:
        """The error for the line that comes next."""
        number, path = self.seq + 1, shlex.quote(str(self.path))
        way_out = "start the sweep anew."
        if self.seq:
            way_out = (
                f"keep only the {self.seq} good lines before it (head -c {self.offset} {path} > good.jsonl, then move "
                "that in its place): `hsm complete` then runs the tasks which they do not tell as ended."
            )
        return JournalError(
            f"{self.path}:{number}: the line at byte {self.offset} is damaged: {why}. "
            f"Restore the file from a backup, or {way_out}"
        )

    def _check_first(self, data: Mapping[str, Any]) -> None:
        if data["event"] != SweepStarted.kind:
            raise self.damaged(f"a journal begins with '{SweepStarted.kind}', this one with '{data['event']}'")
        version = data.get("format")
        if not isinstance(version, int) or version < 1:
            raise self.damaged(f"it names no format ({version!r})")
        if version > FORMAT:
            raise JournalError(
                f"The journal {self.path} is of format {version}, written by hsm {data.get('hsm', '(unknown)')}; "
                f"this is hsm {__version__}, which reads up to format {FORMAT}. Use that version or a newer one."
            )


def _empty(path: Path) -> JournalError:
    return JournalError(f"The journal {path} is missing or empty: no task was run there. Start the sweep anew.")


# From here to `_since_1970` is all that stands between an event and its bytes.
_JSON = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _encode(seq: int, micros: int, event: Event) -> bytes:
    record = {"seq": seq, "t": _stamp(micros), **to_json(event)}
    try:
        text = _JSON.encode(record)
    except (ValueError, TypeError, RecursionError):
        text = ""
    if not text or text.count("[") + text.count("{") > _DEEPEST:
        text = _JSON.encode(_plain(record))
    return text.encode("ascii") + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(str(line, "utf-8"))
    except (ValueError, RecursionError):
        return None
    if type(data) is not dict or type(data.get("seq")) is not int or type(data.get("t")) is not str:
        return None
    return data if type(data.get("event")) is str else None


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
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(_plain(k, above)): _plain(v, above) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, above) for item in value]
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _stamp(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_date(seconds)}.{rest:06d}Z"


def _seconds(text: str) -> float:
    if len(text) != 27 or text[19] != "." or text[26] != "Z":
        raise ValueError(f"time '{text}' is not like 2026-01-15T14:30:22.123456Z")
    return (_since_1970(text[:19]) * 1_000_000 + int(text[20:26])) / 1e6


@lru_cache(maxsize=16)
def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]


@lru_cache(maxsize=16)
def _since_1970(date: str) -> int:
    return int(datetime.fromisoformat(f"{date}+00:00").timestamp())


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)


def _save_tail(path: Path, start: int, end: int) -> Path:
    names = (path.with_name(f"{path.name}.torn-{n}") for n in itertools.count(1))
    cut = next(name for name in names if not name.exists())
    fd = _new_file(cut)
    try:
        _copy(path, fd, start, end)
    finally:
        os.close(fd)
    return cut


def _copy(path: Path, fd: int, start: int, end: int) -> None:
    """Copy these bytes of the file to `fd`; they are on the disk when this returns."""
    with open(path, "rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(end - start, _CHUNK))):
            start += len(chunk)
            _write(fd, chunk)
    if start < end:
        raise JournalError(f"The journal {path} became shorter since it was read: someone else changes it.")
    os.fsync(fd)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _named(error: OSError, path: Path) -> OSError:
    """The same error, telling which file it is about."""
    return OSError(error.errno, os.strerror(error.errno or 0), str(path))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as e:
        # Some file systems can't sync a directory; then a rename is as safe as they make it.
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
