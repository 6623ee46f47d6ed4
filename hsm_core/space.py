"""Room on the disk of a sweep: whether there is enough to hand out tasks, and how it stands in words."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from hsm_core.events import Note
from hsm_core.exceptions import Unwritable
from hsm_core.text import duration, printable, size

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""errors that end by themselves once somebody makes room"""
PATIENCE = 24 * 3600.0
"""seconds a sweep waits for room before it ends: long enough for a night"""
_FLOOR = 10 << 20
_FLOOR_SHARE = 0.05
"""bytes, or where that is less this share of the whole disk, below which no task is handed out"""
_LOOK_EVERY = 1.0


def room_words(path: Path) -> str:
    """`12 KiB of 8.0 MiB are free on /mnt/scratch`, of the disk that `path` is on."""
    disk = os.statvfs(path)
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    files = ", and no more files can be made" if _no_more_files(disk) else ""
    return f"{size(free)} of {size(whole)} are free on {printable(str(_mount_point(path)))}{files}"


def why_unwritable(error: OSError, path: Path) -> str:
    """What went wrong there; of a full disk with how it stands, and what to do."""
    words = f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
    if error.errno not in NO_SPACE:
        return words
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    return f"{words}; {room_words(place)}. Make room, or name another hydra.sweep.dir"


def check_room(path: Path) -> None:
    """Raise OSError where the disk is as good as full."""
    if is_low(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def is_low(path: Path) -> bool:
    """Whether the disk that `path` is on is as good as full."""
    disk = os.statvfs(path)
    floor = min(_FLOOR, disk.f_blocks * disk.f_frsize * _FLOOR_SHARE)
    return disk.f_bavail * disk.f_frsize < floor or _no_more_files(disk)


class Room:
    """Watches the disk that a folder is on, and tells when it gets full and when there is room again."""

    def __init__(self, folder: Path, tell: Callable[[Note], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._low_since: float | None = None
        self._looked_at = float("-inf")

    def enough(self) -> bool:
        """Whether a task may be handed out now. Raises Unwritable when there was no room for `PATIENCE` seconds."""
        now = time.monotonic()
        if now >= self._looked_at + _LOOK_EVERY:
            self._looked_at = now
            self._look(now)
        return self._low_since is None

    def _look(self, now: float) -> None:
        low = is_low(self._folder)
        if low and self._low_since is None:
            self._low_since = now
            words = "No tasks are handed out until there is room; those that run are left alone."
            self._tell(Note("ERROR", f"The disk is full: {room_words(self._folder)}. {words}"))
        elif low and self._low_since is not None and now > self._low_since + PATIENCE:
            raise Unwritable(f"The disk is full since {duration(PATIENCE)}: {room_words(self._folder)}.")
        elif not low and self._low_since is not None:
            self._tell(Note("INFO", f"There is room again: {room_words(self._folder)}. The sweep goes on."))
            self._low_since = None


def _no_more_files(disk: os.statvfs_result) -> bool:
    # File systems without a fixed number of files say that they have none at all.
    return disk.f_files > 0 and disk.f_favail == 0


def _mount_point(path: Path) -> Path:
    place = path.resolve()
    while not os.path.ismount(place):
        place = place.parent
    return place
