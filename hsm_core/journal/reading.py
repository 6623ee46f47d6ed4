"""Reading a journal: all of it at once, its first line, or as it grows."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hsm_core import __version__
from hsm_core.events import FORMAT, Event, SweepStarted
from hsm_core.exceptions import JournalError
from hsm_core.journal.lines import Line, Unknown, decode, decode_block, line_of
from hsm_core.state import SweepState, apply_all
from hsm_core.text import plural

_BLOCK = 1 << 16  # bytes


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


def replay(path: Path) -> Replay:
    """Read a journal from its first line and fold it.

    What a crash left unfinished at the end is not an error: it is left out, and `torn` is set. Raises JournalError
    when the journal is missing, holds no event, is damaged before its end, or is of a newer format than this version's.
    """
    state, reader = SweepState(), Reader(path)
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for lines in reader.blocks(file):
            apply_all(state, lines, [line.t for line in lines])
        reader.check_torn(file)
    if reader.seq == 0:
        raise _empty(path)
    return Replay(state, reader.seq, reader.offset, reader.unreadable is not None)


def started(path: Path) -> SweepStarted:
    """The first event of a journal, without reading the rest. Raises JournalError as `replay` does."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        first = Reader(path).take(file.readline())
        if isinstance(first, SweepStarted):
            return first
    raise _empty(path)


def entries(path: Path) -> Iterator[Entry]:
    """The whole lines of a journal, one after the other; none where there is no file.

    Raises JournalError as `replay` does, at the line that it is about.
    """
    reader = Reader(path)
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for lines in reader.blocks(file):
            yield from map(_entry, lines)
        reader.check_torn(file)


class Tail:
    """Follows a journal which another process writes, from its first line or from behind a replay of it."""

    def __init__(self, path: Path, after: Replay | None = None) -> None:
        self._reader = Reader(path) if after is None else Reader(path, after.seq, after.offset)

    def poll(self) -> list[Entry]:
        """The whole lines since the last poll; none while there is no file. Raises JournalError as `replay` does."""
        reader, entries = self._reader, []
        # Opened for every poll: an NFS client then asks the server, and a resume may have put a new file there.
        with contextlib.suppress(FileNotFoundError), open(reader.path, "rb") as file:
            if os.fstat(file.fileno()).st_size < reader.offset:
                raise JournalError(f"The journal {reader.path} became shorter while it was read. Start this again.")
            file.seek(reader.offset)
            for lines in reader.blocks(file):
                entries += [_entry(line) for line in lines]
            # NULs are where NFS has not brought the bytes yet: they come.
            if b"\0" not in (reader.unreadable or b""):
                reader.check_torn(file)
        return entries


class Reader:
    """Where a reader stands in a journal. The number of a line is also its `seq`."""

    def __init__(self, path: Path, seq: int = 0, offset: int = 0) -> None:
        self.path = path
        self.seq = seq
        self.offset = offset
        self.unreadable: bytes | None = None
        """the line that could not be read, where `blocks` ended with one"""
        self.problem = ""
        """what is wrong with the line that comes next, where that is damaged"""

    def blocks(self, file: BinaryIO) -> Iterator[Sequence[Line]]:
        """The lines from here on, many at a time, up to the end or a line that is no record; the file is behind that.

        Raises JournalError for a line that can't be the next one of this journal.
        """
        self.unreadable = None
        # The first line alone: it is looked at more closely.
        while block := self._whole_lines(file) if self.seq else file.readline():
            lines = decode_block(block, self.seq + 1) if self.seq else None
            if lines is None:
                yield self._one_by_one(io.BytesIO(block))
            else:
                self.seq += len(lines)
                self.offset += len(block)
                yield lines
            if self.unreadable is not None:
                file.seek(self.offset + len(self.unreadable))
                return

    def passes(self, raw: bytes) -> bool:
        """Go past an empty line, which means nothing; False, and no step, for any other."""
        if raw != b"\n":
            return False
        self.offset += 1
        return True

    def take(self, raw: bytes) -> Line | None:
        """Go one line on. None, and no step, for what is no record: unfinished or garbage."""
        data = decode(raw)
        if data is None:
            return None
        if data["seq"] != self.seq + 1:
            raise self.damaged(f"its seq is {data['seq']} where {self.seq + 1} must come")
        if self.seq == 0:
            self._check_first(data)
        try:
            line = line_of(data)
        except ValueError as e:
            raise self.damaged(f"its event '{data['event']}' is not as it must be ({e})") from e
        self.seq += 1
        self.offset += len(raw)
        return line

    def check_torn(self, later: Iterable[bytes]) -> None:
        """Raise JournalError when a record stands behind the unreadable line: then no crash tore it off."""
        # Behind a line without its end nothing can stand but what its writer added since.
        if self.unreadable is not None and self.unreadable.endswith(b"\n") and any(map(decode, later)):
            raise self.damaged("it can't be read, though lines behind it can")

    def damaged(self, why: str) -> JournalError:
        """The error for the line that comes next."""
        self.problem = why
        way_out = "start the sweep anew."
        if self.seq:
            sweep = shlex.quote(str(self.path.parent.parent))
            way_out = (
                f"`hsm journal repair {sweep}` keeps the {plural(self.seq, 'good line')} before it; "
                "`hsm complete` then runs the tasks which they do not tell as ended."
            )
        return JournalError(
            f"{self.path}:{self.seq + 1}: the line at byte {self.offset} is damaged: {why}. "
            f"Restore the file from a backup, or {way_out}"
        )

    @staticmethod
    def _whole_lines(file: BinaryIO) -> bytes:
        block = file.read(_BLOCK)
        return block if block.endswith(b"\n") else block + file.readline()

    def _one_by_one(self, block: Iterable[bytes]) -> list[Line]:
        lines: list[Line] = []
        for raw in block:
            if self.passes(raw):
                continue
            line = self.take(raw)
            if line is None:
                self.unreadable = raw
                break
            lines.append(line)
        return lines

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


def _entry(line: Line) -> Entry:
    return Entry(line.seq, line.t, None if isinstance(line, Unknown) else line)


def _empty(path: Path) -> JournalError:
    return JournalError(f"The journal {path} is missing or empty: no task was run there. Start the sweep anew.")
