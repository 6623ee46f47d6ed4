"""What `rsync.push` does, by SFTP."""

from __future__ import annotations

import contextlib
import os
import posixpath
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core.exceptions import SourceError
from hsm_core.remote import confined
from hsm_core.remote.manifest import PARTIAL
from hsm_core.text import printable
from hsm_core.transfer.rsync import READ_ONLY, WRITABLE, Moved
from hsm_core.transfer.sftp import Session, partial_name
from hsm_core.transfer.shell import Files

if TYPE_CHECKING:
    import paramiko

_PIECE = 1 << 20
_MODES = {READ_ONLY: (0o400, 0o500), WRITABLE: (0o600, 0o700)}
"""bits that each file gets, and those that it may keep"""
_LINK = 'while [ $# -gt 0 ]; do ln -- "$0/$1" "$1" 2>/dev/null; shift; done'


def push(
    connection: Files,
    local: Path,
    names: Sequence[str],
    remote: str,
    *,
    chmod: str = WRITABLE,
    link_dest: str | None = None,
    compress: bool = False,
    timeout: float = 60.0,
) -> Moved:
    """As `rsync.push`. `compress` says nothing here: the connection compresses, or it does not.

    SFTP does not tell when a disk is full; that is a problem of each file then.
    """
    paths = ["/".join(confined.parts(name)) for name in names]
    with Session(connection, remote, timeout) as session:
        pusher = _Push(session, local, remote, _MODES[chmod])
        try:
            pusher.make_folder(remote)
        except OSError as e:
            if session.is_lost(e):
                raise
            raise SourceError(f"{printable(remote)} on {connection.address} can't be used: {e}") from e
        entries = list(pusher.entries(paths))
        if link_dest is not None:
            unchanged = pusher.unchanged_in(posixpath.normpath(f"{remote}/{link_dest}"), entries)
            _link(connection, remote, link_dest, unchanged)
            pusher.forget(unchanged)
        for name in entries:
            pusher.push(name)
        pusher.close()
        return session.moved(0)


def _link(connection: Files, remote: str, link_dest: str, names: Sequence[str]) -> None:
    """Make hard links to these files of the folder `link_dest`. Those that can't be made are sent as others are."""
    program = connection.run(
        f"CDPATH= cd -- {shlex.quote(remote)} && exec xargs -0 sh -c {shlex.quote(_LINK)} {shlex.quote(link_dest)}"
    )
    try:
        with contextlib.suppress(OSError):
            program.stdin.write(b"".join(os.fsencode(f"./{name}\0") for name in names))
            program.stdin.close()
        while program.stdout.read(_PIECE):
            pass
    finally:
        program.close()


class _Push:
    def __init__(self, session: Session, local: Path, remote: str, modes: tuple[int, int]) -> None:
        self._session = session
        self._client = session.client
        self._local = local
        self._remote = remote
        self._given, self._kept = modes
        self._folders: dict[str, dict[str, paramiko.SFTPAttributes]] = {}
        """what was in the folders over there that are known to be there"""

    def entries(self, names: Sequence[str]) -> Iterator[str]:
        """The files and links below these names; their folders are made."""
        for name in names:
            with self._session.moving(name):
                try:
                    status = (self._local / name).lstat()
                except FileNotFoundError:
                    self._session.problem(name, "it has vanished")
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    yield name
                    continue
                self.make_folder(f"{self._remote}/{name}")
                below = sorted(entry for entry in os.listdir(self._local / name) if entry != PARTIAL)
                yield from self.entries([f"{name}/{entry}" for entry in below])

    def unchanged_in(self, folder: str, names: Sequence[str]) -> list[str]:
        """Those of the files that are in that folder as they are here, and not where they go."""
        found = []
        for name in names:
            with self._session.moving(name):
                status = (self._local / name).lstat()
                self.make_folder(posixpath.dirname(f"{self._remote}/{name}"))
                if self._is_same(f"{folder}/{name}", status) and not self._is_same(f"{self._remote}/{name}", status):
                    found.append(name)
        return found

    def forget(self, names: Sequence[str]) -> None:
        """What is known of the folders of these files is no longer so."""
        for name in names:
            self._folders.pop(posixpath.dirname(f"{self._remote}/{name}"), None)

    def push(self, name: str) -> None:
        """Send one file or link."""
        there = f"{self._remote}/{name}"
        with self._session.moving(name):
            status = (self._local / name).lstat()
            self.make_folder(posixpath.dirname(there))
            if stat.S_ISLNK(status.st_mode):
                self._link(os.readlink(self._local / name), there)
            elif stat.S_ISREG(status.st_mode) and not self._is_same(there, status):
                self._file(name, there)

    def close(self) -> None:
        """Remove the folder for parts, where nothing waits in it."""
        with contextlib.suppress(OSError):
            self._client.rmdir(self._waiting)

    def make_folder(self, path: str) -> None:
        """Have a folder there, private like those above it that are made."""
        if path in self._folders or path in ("", "/", "."):
            return
        try:
            self._folders[path] = self._listed(path)
        except FileNotFoundError:
            self.make_folder(posixpath.dirname(path))
            self._client.mkdir(path, 0o700)
            self._folders[path] = {}

    def _listed(self, folder: str) -> dict[str, paramiko.SFTPAttributes]:
        return {entry.filename: entry for entry in self._client.listdir_attr(folder)}

    def _look(self, path: str) -> paramiko.SFTPAttributes | None:
        folder, name = posixpath.split(path)
        if folder not in self._folders:
            try:
                self._folders[folder] = self._listed(folder)
            except FileNotFoundError:
                return None
        return self._folders[folder].get(name)

    def _is_same(self, there: str, status: os.stat_result) -> bool:
        found = self._look(there)
        if found is None or not stat.S_ISREG(status.st_mode):
            return False
        wanted = stat.S_IFREG | (status.st_mode | self._given) & self._kept
        return (found.st_size, found.st_mtime, found.st_mode) == (status.st_size, int(status.st_mtime), wanted)

    @property
    def _waiting(self) -> str:
        return f"{self._remote}/{PARTIAL}"

    def _file(self, name: str, there: str) -> None:
        here = os.open(self._local / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(here, "rb") as file:
            status = os.fstat(here)
            mtime = int(status.st_mtime)
            self.make_folder(self._waiting)
            partial = f"{self._waiting}/{partial_name(name, status.st_size, mtime)}"
            begun = self._look(partial)
            file.seek(0 if begun is None else begun.st_size or 0)
            with self._client.open(partial, "ab") as target:
                target.set_pipelined(True)
                while piece := file.read(_PIECE):
                    target.write(piece)
        self._client.utime(partial, (mtime, mtime))
        self._client.chmod(partial, (status.st_mode | self._given) & self._kept)
        self._client.posix_rename(partial, there)

    def _link(self, target: str, there: str) -> None:
        found = self._look(there)
        if found is not None and stat.S_ISLNK(found.st_mode or 0) and self._client.readlink(there) == target:
            return
        self.make_folder(self._waiting)
        new = f"{self._waiting}/link"
        with contextlib.suppress(FileNotFoundError):
            self._client.remove(new)
        self._client.symlink(target, new)
        self._client.posix_rename(new, there)
