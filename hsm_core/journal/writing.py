"""The one writer of a journal, and how it goes on with what an earlier one left."""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import os
import secrets
import time
from pathlib import Path

from hsm_core.crashpoint import crashpoint
from hsm_core.events import Event
from hsm_core.exceptions import JournalError, SweepExists
from hsm_core.journal.lines import encode
from hsm_core.journal.reading import Replay

_CHUNK = 1 << 20  # bytes


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
            crashpoint("journal_copied")
            os.rename(new, path)
        except BaseException:
            os.close(fd)
            new.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
        return cls(fd, path, after.seq, after.offset, cut)

    def append(self, event: Event) -> float:
        """Hand one event to the operating system, as a whole line; returns the time written (seconds since 1970).

        Raises OSError when it can't be written, ValueError for an event that could not be read back: then the journal
        is as before, and a later append may work.
        """
        if self._lost:
            raise OSError(errno.EIO, "an earlier sync failed; resume the sweep to go on", str(self.path))
        if self._ragged:
            self._trim()
        micros = time.time_ns() // 1000
        seq, offset = self._end
        line = encode(seq + 1, micros, event)
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
