"""What `rsync` does, by SFTP, for hosts that have no rsync: slower for many small files, with the same rules.

What did not change, by size and time in seconds, is not moved again. What was moved in part waits under a name with the
size and the time it belongs to, so that it is gone on with only while its file stays the same. Names are text here:
SFTP as paramiko has it knows no others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core.exceptions import NoRoom, SourceError, Unavailable
from hsm_core.remote import confined
from hsm_core.remote.manifest import PARTIAL
from hsm_core.space import NO_SPACE, why_unwritable
from hsm_core.text import printable
from hsm_core.transfer.mirror import MUNGED
from hsm_core.transfer.rsync import SHOWN, Moved
from hsm_core.transfer.shell import Files

if TYPE_CHECKING:
    import paramiko

REQUEST = 32 << 10
"""bytes that are asked for at once; every server gives as many"""
WINDOW = 1 << 20
"""bytes that are asked for before the first of them came; paramiko asks in a thread, which is to be done soon"""


def pull(
    connection: Files, remote: str, names: Sequence[str], into: Path, *, compress: bool = False, timeout: float = 60.0
) -> Moved:
    """As `rsync.pull`. `compress` says nothing here: the connection compresses, or it does not."""
    paths = [confined.parts(name) for name in names]
    try:
        into.mkdir(parents=True, mode=0o700, exist_ok=True)
        with Session(connection, remote, timeout) as session:
            try:
                session.client.stat(remote)
            except FileNotFoundError as e:
                raise SourceError(f"{printable(remote)} on {connection.address} can't be used: {_words(e)}") from e
            puller = _Pull(session, remote, into)
            for path in paths:
                puller.pull(path)
            return session.moved(puller.received)
    except OSError as e:
        error = NoRoom if e.errno in NO_SPACE else SourceError
        raise error(why_unwritable(e, into)) from e


class Session:
    """A session of SFTP for a `with` block, and what it could not move. Raises Unavailable there once it is lost."""

    def __init__(self, connection: Files, remote: str, timeout: float) -> None:
        self._where = f"{printable(remote)} on {connection.address}"
        self._problems: list[str] = []
        self._failed = 0
        self.client = connection.sftp()
        channel = self.client.get_channel()
        assert channel is not None
        self._channel = channel
        channel.settimeout(timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        lost = self.is_lost(error)
        with contextlib.suppress(OSError, EOFError):  # of a connection that is just being lost
            self.client.close()
        if lost:
            raise Unavailable(f"the transfer with {self._where} was cut off: {error or 'it is silent'}") from error

    @contextlib.contextmanager
    def moving(self, name: str) -> Iterator[None]:
        """What goes wrong in here is a problem of this one file, unless the session is lost or no room is left."""
        try:
            yield
        except (OSError, EOFError, UnicodeError, ValueError) as e:
            if self.is_lost(e) or (isinstance(e, OSError) and e.errno in NO_SPACE):
                raise
            what = "its name is no UTF-8; rsync would move it" if isinstance(e, UnicodeError) else _words(e)
            self.problem(name, what)

    def problem(self, name: str, what: str) -> None:
        self._failed += 1
        if self._failed <= SHOWN:
            self._problems.append(f"{printable(name, 300)}: {printable(what, 200)}")

    def moved(self, received: int) -> Moved:
        return Moved(self._failed == 0, self._problems, received)

    def look(self, path: str) -> paramiko.SFTPAttributes | None:
        """What stands there, links not followed; None if nothing does."""
        try:
            return self.client.lstat(path)
        except FileNotFoundError:
            return None

    def is_lost(self, error: BaseException | None) -> bool:
        """Whether an error means that nothing more can be moved."""
        from paramiko import SFTPError, SSHException

        if isinstance(error, (SSHException, SFTPError, TimeoutError)):
            return True
        return isinstance(error, (EOFError, OSError)) and (self._channel.closed or self._channel.eof_received)


class _Pull:
    def __init__(self, session: Session, remote: str, into: Path) -> None:
        self._session = session
        self._client = session.client
        self._remote = remote
        self._into = into
        self._waiting = into / PARTIAL
        self._waiting.mkdir(mode=0o700, exist_ok=True)
        self.received = 0

    def pull(self, path: tuple[str, ...]) -> None:
        """Bring a file, or a folder with all that is in it; nothing where there is none."""
        name = "/".join(path)
        with self._session.moving(name):
            found = self._session.look(f"{self._remote}/{name}")
            if found is not None:
                waiting = self._entry(path, found)
                while waiting:
                    waiting += self._folder(waiting.pop())

    def _folder(self, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Bring what is in a folder; returns the folders in it."""
        name = "/".join(path)
        below: list[tuple[str, ...]] = []
        with self._session.moving(name):
            _make_folder(self._into.joinpath(*path))
            for entry in self._client.listdir_attr(f"{self._remote}/{name}"):
                if entry.filename == PARTIAL:
                    continue
                inside = f"{name}/{entry.filename}"
                with self._session.moving(inside):
                    if "/" in entry.filename:
                        raise ValueError("it is no name of a file in the folder")
                    below += self._entry(confined.parts(inside), entry)
        return below

    def _entry(self, path: tuple[str, ...], found: paramiko.SFTPAttributes) -> list[tuple[str, ...]]:
        """Bring one entry if it is a file or a link; returns its path if it is a folder."""
        name, mode = "/".join(path), found.st_mode or 0
        here = self._into.joinpath(*path)
        if stat.S_ISDIR(mode):
            return [path]
        here.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_ISLNK(mode):
            self._link(MUNGED + os.fsdecode(self._client.readlink(f"{self._remote}/{name}") or ""), here)
        elif stat.S_ISREG(mode):
            self._file(name, here, found)
        return []

    def _file(self, name: str, here: Path, found: paramiko.SFTPAttributes) -> None:
        size, mtime = found.st_size or 0, found.st_mtime or 0
        with contextlib.suppress(FileNotFoundError):
            now = here.lstat()
            if stat.S_ISREG(now.st_mode) and (now.st_size, int(now.st_mtime)) == (size, mtime):
                return
        partial = self._waiting / partial_name(name, size, mtime)
        mode = 0o777 if (found.st_mode or 0) & stat.S_IXUSR else 0o666
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, mode), "ab") as file:
            try:
                with self._client.open(f"{self._remote}/{name}", "rb") as source:
                    for piece in _pieces(source, file.tell(), size):
                        self.received += len(piece)
                        file.write(piece)
            except EOFError as e:
                if self._session.is_lost(e):
                    raise
                partial.unlink()
                raise ValueError("it shrank while it was read") from e
        os.utime(partial, (mtime, mtime))
        os.rename(partial, here)

    def _link(self, target: str, here: Path) -> None:
        if here.is_symlink() and os.readlink(here) == target:
            return
        new = self._waiting / partial_name(target, 0, 0)
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        os.rename(new, here)


def partial_name(name: str, size: int, mtime: int) -> str:
    """The name under which a part of this version of a file waits."""
    return f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.{mtime}.{size}"


def _pieces(source: paramiko.SFTPFile, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from `start` to `end`. Raises EOFError where it does not go so far."""
    while start < end:
        stop = min(start + WINDOW, end)
        for offset, piece in zip(
            range(start, stop, REQUEST),
            source.readv([(o, min(REQUEST, stop - o)) for o in range(start, stop, REQUEST)]),
            strict=True,
        ):
            yield piece
            if len(piece) < min(REQUEST, stop - offset):
                raise EOFError
        start = stop


def _make_folder(here: Path) -> None:
    """Have a folder there; what came before under its name gives way."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(here.lstat().st_mode):
            here.unlink()
    here.mkdir(mode=0o700, parents=True, exist_ok=True)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
