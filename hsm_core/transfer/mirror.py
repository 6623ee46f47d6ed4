"""From what came from a host into the sweep directory: a host writes below its tasks' own directories and nowhere else.

Each source has a mirror, a private folder that nothing else writes to; it stays between transfers, so that only changes
are transferred. What is new in it is published: hard links to its files appear in the sweep directory under the same
names. The names a host chose are data here: folders are opened one by one without following links, and of its own links
only those are made that stay inside the task's directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsm_core.exceptions import NoRoom, SourceError
from hsm_core.remote import confined
from hsm_core.remote.manifest import PARTIAL
from hsm_core.space import NO_SPACE, room_words
from hsm_core.text import printable

MUNGED = "/rsyncd-munged/"
"""stands before the target of each link in a mirror, which so leads nowhere; see --munge-links in rsync(1)"""
SHOWN = 100
"""skipped entries that are told of"""

_NO_LINKS = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""errors of file systems that can't make this hard link"""
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EXDEV})
"""errors of rename(2) where there is something else than an empty folder, or another file system"""


@dataclass
class Published:
    """What was done to the sweep directory."""

    files: int = 0
    """files and links that are new there, or other ones than before"""
    skipped: list[str] = field(default_factory=list)
    """what is not published and why, printable, the first ones"""

    def skip(self, path: str, why: str) -> None:
        if len(self.skipped) < SHOWN:
            self.skipped.append(f"{printable(path)} {why}")


def publish(mirror: Path, directory: Path, names: Sequence[str]) -> Published:
    """Let the sweep directory have what the mirror has below these names, the output directories of tasks.

    Files at home are replaced as a whole, none is removed. Names that the mirror does not have are passed over. A file
    that changed in the mirror is another one there, so only those are touched. Raises NoRoom where the disk is full,
    SourceError where the sweep directory can't be written to, ValueError for names that are none of a task.
    """
    done = Published()
    try:
        with _opened(mirror) as source, _opened(directory) as target:
            for name in names:
                path = confined.parts(name)
                if path[0] == ".hsm":
                    raise ValueError(f"{name[:200]!r} is a name of hsm itself")
                _Tree(source, target, path, done).publish()
    except OSError as e:
        if e.errno in NO_SPACE:
            raise NoRoom(f"The disk is full: {room_words(directory)}. Make room") from e
        raise SourceError(f"what came can't be put into {directory}: {e.strerror}: {e.filename}") from e
    return done


def adopt(staging: Path, directory: Path, names: Sequence[str]) -> Sequence[str]:
    """Move output directories of tasks, of real files and folders only, from `staging` into the sweep directory.

    Returns those that stay where they are, as something has their name there, or the way there is none: `publish` knows
    what to do. Raises OSError.
    """
    with _opened(staging) as source, _opened(directory) as target:
        return [name for name in names if not _adopt(source, target, confined.parts(name))]


def _adopt(source: int, target: int, path: tuple[str, ...]) -> bool:
    there = _Tree(source, target, path, Published()).folder_at_home(path[:-1])
    if there is None:
        return False
    try:
        os.rename("/".join(path), path[-1], src_dir_fd=source, dst_dir_fd=there)
    except OSError as e:
        if e.errno not in _TAKEN:
            raise
        return False
    finally:
        os.close(there)
    return True


def discard(mirror: Path, names: Sequence[str]) -> None:
    """Remove what the mirror has below these names. Raises OSError."""
    for name in names:
        path = confined.parts(name)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(mirror) as top:
            os.close(confined.open_folder(top, path[:-1]))
            place = mirror.joinpath(*path)
            if stat.S_ISDIR(place.lstat().st_mode):
                shutil.rmtree(place)
            else:
                place.unlink()


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Tree:
    """One task's output directory, at `root` below both folders."""

    def __init__(self, source: int, target: int, root: tuple[str, ...], done: Published) -> None:
        self._source, self._target = source, target
        self._root = root
        self._done = done

    def publish(self) -> None:
        waiting = [self._root]
        while waiting:
            path = waiting.pop()
            try:
                here = confined.open_folder(self._source, path)
            except FileNotFoundError:
                continue
            except OSError as e:
                self._skip(path, f"is no folder in what came: {e.strerror}")
                continue
            try:
                there = self.folder_at_home(path)
                if there is not None:
                    try:
                        waiting += self._publish_folder(path, here, there)
                    finally:
                        os.close(there)
            finally:
                os.close(here)

    def folder_at_home(self, path: tuple[str, ...]) -> int | None:
        """The folder at home, made if need be; None where something else is in its way."""
        with contextlib.suppress(FileNotFoundError):
            return self._open_at_home(path)
        parent = self.folder_at_home(path[:-1])
        if parent is None:
            return None
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path[-1], dir_fd=parent)
        finally:
            os.close(parent)
        return self._open_at_home(path)

    def _open_at_home(self, path: tuple[str, ...]) -> int | None:
        try:
            return confined.open_folder(self._target, path)
        except OSError as e:
            if e.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            self._skip(path, "is a folder in what came, but at home there is a link or a file on the way to it")
            return None

    def _publish_folder(self, path: tuple[str, ...], here: int, there: int) -> list[tuple[str, ...]]:
        """Publish what a folder holds itself; returns the folders in it."""
        below = []
        _remove(PARTIAL, there)  # of a launcher that was killed
        with os.scandir(here) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.name == PARTIAL:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    below.append((*path, entry.name))
                elif stat.S_ISREG(status.st_mode):
                    self._file(path, entry.name, status, here, there)
                elif stat.S_ISLNK(status.st_mode):
                    self._link(path, entry.name, os.readlink(entry.name, dir_fd=here), there)
                else:
                    self._skip((*path, entry.name), "is neither file nor folder nor link")
        return below

    def _file(self, path: tuple[str, ...], name: str, status: os.stat_result, here: int, there: int) -> None:
        now = _look(name, there)
        if now is not None and (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
            return
        if now is not None and stat.S_ISDIR(now.st_mode):
            self._skip((*path, name), "is a file in what came, but a folder at home")
            return
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
            _make_plain(name, here)
        new = name if now is None else PARTIAL
        try:
            os.link(name, new, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _NO_LINKS:
                raise
            if now is not None and (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                return
            new = PARTIAL
            _copy(name, here, there)
        if new == PARTIAL:
            os.rename(PARTIAL, name, src_dir_fd=there, dst_dir_fd=there)
        self._done.files += 1

    def _link(self, path: tuple[str, ...], name: str, munged: str, there: int) -> None:
        target = munged.removeprefix(MUNGED)
        if not confined.stays_inside(target, len(path) - len(self._root)):
            self._skip((*path, name), f"is a link out of the task's directory, to {printable(target, 200)}")
            return
        now = _look(name, there)
        if now is not None and stat.S_ISDIR(now.st_mode):
            self._skip((*path, name), "is a link in what came, but a folder at home")
        elif now is None or not stat.S_ISLNK(now.st_mode) or os.readlink(name, dir_fd=there) != target:
            os.symlink(target, PARTIAL, dir_fd=there)
            os.rename(PARTIAL, name, src_dir_fd=there, dst_dir_fd=there)
            self._done.files += 1

    def _skip(self, path: tuple[str, ...], why: str) -> None:
        self._done.skip("/".join(path), why)


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=folder)


def _make_plain(name: str, folder: int) -> None:
    """Take the special bits off a file's mode."""
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o777)


def _copy(name: str, here: int, there: int) -> None:
    """Copy a file of the mirror to a temporary name at home, with its time."""
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    with open(source, "rb") as read:
        status = os.fstat(source)
        made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(PARTIAL, made, status.st_mode & 0o777, dir_fd=there), "wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.utime(written.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
