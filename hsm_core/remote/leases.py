"""Leases: what keeps two tasks off the same GPU, whichever sweep or user of the host they belong to.

Every device has a file, and a lease is a lock on bytes of it: all of them, or a share. The locks are those
of open file descriptions (F_OFD_SETLK, fcntl(2)): a slot takes them, its worker inherits them,
and the kernel frees them when the last of both has ended, however that came.

Who has to wait locks one more byte, which lies the farther behind the later it came. Nobody takes a
device while somebody who came earlier waits for it; so a busy sweep leaves room for others, and a
task that needs several devices gets them at last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Iterable, Sequence

from hsm_core.remote import process
from hsm_core.remote.gpus import GpuError

WHOLE = 1000
"""bytes that stand for a device; those behind are for who waits, numbered by nanoseconds since the boot"""
FOLDERS = ("/run/lock", "/dev/shm")  # noqa: S108 - each is looked at before it is used
"""where the files are: the first of these that everybody may write to"""
LOOK = 0.1
"""seconds between two tries of who waits"""

# Python lacks the names where it was built with a glibc before 2.20, as conda's; asm-generic/fcntl.h.
_GETLK = getattr(fcntl, "F_OFD_GETLK", 36)
_SETLK = getattr(fcntl, "F_OFD_SETLK", 37)
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length, pid"""


def width(per_task: float) -> int:
    """Bytes of each device that a task locks."""
    return WHOLE if per_task >= 1 else max(1, int(per_task * WHOLE))


def capacity(devices: int, per_task: float) -> int:
    """How many tasks can hold a lease on so many devices at the same time."""
    return devices // int(per_task) if per_task >= 1 else devices * (WHOLE // width(per_task))


def check(devices: Iterable[str]) -> None:
    """Make sure that these devices can be leased here. Raises GpuError."""
    for device in devices:
        os.close(_open(device))


def place(devices: Iterable[str]) -> str:
    """The folder by which these devices are leased here; nothing is made in it. Raises GpuError where they can't be."""
    for device in devices:
        if os.path.lexists(_path(device)):
            os.close(_open(device))
    return _folder()


class Lease:
    """The devices of one task: asked for, perhaps waited for, then held until they are released."""

    def __init__(self, devices: Sequence[str], per_task: float) -> None:
        """Nothing is taken yet. `devices`: ids of those it may be. Raises GpuError where they can't be leased."""
        self._count = 1 if 0 < per_task < 1 else int(per_task)
        self._width = width(per_task)
        self._came = time.monotonic_ns()
        self._files: dict[str, int] = {}
        try:
            for device in devices:
                self._files[device] = _open(device)
        except GpuError:
            self.release()
            raise

    @property
    def devices(self) -> list[str]:
        return list(self._files)

    @property
    def descriptors(self) -> list[int]:
        """The open files by which the lease is held; who inherits them holds it too."""
        return list(self._files.values())

    def take(self) -> bool:
        """Try to get all that the task needs, without waiting; False, and it waits in line, when that is impossible.

        After True, `devices` are those it got.
        """
        taken: list[str] = []
        for device, fd in self._files.items():
            if len(taken) < self._count and not self._has_to_wait(fd) and _lock_first_fit(fd, self._width):
                taken.append(device)
        if len(taken) < self._count:
            for device in taken:
                _set(self._files[device], fcntl.F_UNLCK, 0, WHOLE)
            for fd in self._files.values():
                _set(fd, fcntl.F_WRLCK, WHOLE + self._came, 1)
            return False
        for device in self.devices:
            if device in taken:
                _set(self._files[device], fcntl.F_UNLCK, WHOLE, 0)
            else:
                os.close(self._files.pop(device))
        return True

    def release(self) -> None:
        """Close our descriptors; the lease ends once nobody who inherited them lives."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _has_to_wait(self, fd: int) -> bool:
        """Whether somebody waits for the device who came earlier."""
        return _blocker(fd, WHOLE, self._came) is not None


def _lock_first_fit(fd: int, size: int) -> bool:
    """Lock the first free bytes of a device; False where so many in a row are not free."""
    start = 0
    while start + size <= WHOLE:
        if _set(fd, fcntl.F_WRLCK, start, size):
            return True
        blocker = _blocker(fd, start, size)
        if blocker is not None:
            start = blocker
    return False


def _set(fd: int, kind: int, start: int, length: int) -> bool:
    """Lock or unlock bytes; False where others hold some of them. A length of 0 is all there are."""
    try:
        fcntl.fcntl(fd, _SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, fcntl(2)
        return False
    return True


def _blocker(fd: int, start: int, length: int) -> int | None:
    """Where a lock ends that others hold on these bytes; None where there is no such lock."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, first, size, _ = _FLOCK.unpack(fcntl.fcntl(fd, _GETLK, asked))
    return None if kind == fcntl.F_UNLCK else first + size


def _open(device: str) -> int:
    """The open lock file of a device, made where it is missing. Files are never removed: others may hold them."""
    path = _path(device)
    try:
        fd = _open_or_make(path)
    except OSError as e:
        what = "it is a symbolic link" if e.errno == errno.ELOOP else e.strerror
        raise _unusable(path, f"can't be opened: {what}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _unusable(path, "is no regular file")
    return fd


def _path(device: str) -> str:
    return os.path.join(_folder(), f"hsm-gpu-{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.lock")


def _unusable(path: str, why: str) -> GpuError:
    return GpuError(f"{path}, by which users of this host share a GPU, {why}; have it removed by its owner or root")


def _open_or_make(path: str) -> int:
    # Without O_CREAT first: in such folders it is refused on files of others (fs.protected_regular, proc(5)).
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            before = os.umask(0)
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        finally:
            os.umask(before)


def _folder() -> str:
    """The folder all users of this host share, in which nobody can remove another's files. Raises GpuError."""
    if not process.LINUX:
        raise GpuError("gpus and gpus_per_task need Linux; leave them out to let tasks see all GPUs")
    for folder in FOLDERS:
        try:
            found = os.lstat(folder)
        except FileNotFoundError:
            continue
        everybody = stat.S_ISVTX | stat.S_IWOTH | stat.S_IXOTH
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and found.st_mode & everybody == everybody:
            return folder
    raise GpuError(
        f"GPUs can't be leased: of {' and '.join(FOLDERS)} none is a folder of root's to which everybody may write "
        f"(mode 1777); leave out gpus and gpus_per_task, or have one made"
    )
