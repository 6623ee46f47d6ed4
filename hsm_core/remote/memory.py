"""Memory of one attempt: keeping it below its limit, and telling when the kernel ended it for want of memory.

Linux counts the processes it ends so per memory cgroup (Documentation/admin-guide/cgroup-v2.rst,
`memory.events`; cgroup-v1/memory.rst, `memory.oom_control`). An attempt with a limit gets a cgroup
of its own where we may make one - as root, in a container, or below a user's systemd service;
elsewhere each of its processes gets RLIMIT_DATA, and what asks for more gets a MemoryError.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_PREFIX = "hsm-"
_UNLIMITED = 1 << 60
"""bytes; version 1 shows a number near 2**63 where there is no limit"""


@dataclass(frozen=True)
class Cgroup:
    """A memory cgroup: its folder, and what its files are called in its version."""

    path: str
    limit: str
    swap: tuple[str, bool]
    """the file that limits swap, and whether it counts memory and swap together"""
    events: str
    peak: str

    @classmethod
    def v1(cls, path: str) -> Cgroup:
        swap = ("memory.memsw.limit_in_bytes", True)
        return cls(path, "memory.limit_in_bytes", swap, "memory.oom_control", "memory.max_usage_in_bytes")

    @classmethod
    def v2(cls, path: str) -> Cgroup:
        return cls(path, "memory.max", ("memory.swap.max", False), "memory.events", "memory.peak")

    def read(self, name: str) -> str:
        """What a file of it says; empty where there is no such file."""
        try:
            with open(os.path.join(self.path, name)) as f:
                return f.read()
        except OSError:
            return ""

    def write(self, name: str, value: int) -> None:
        """Raises OSError where that is not allowed."""
        with open(os.path.join(self.path, name), "w") as f:
            f.write(str(value))

    def kills(self) -> int:
        """How many of its processes the kernel ended for want of memory."""
        found = re.search(r"^oom_kill (\d+)$", self.read(self.events), re.MULTILINE)
        return int(found[1]) if found else 0

    def mebibytes(self, name: str) -> float | None:
        """The number in one of its files; None where it has none, or stands for no limit."""
        text = self.read(name).strip()
        return int(text) / (1 << 20) if text.isdecimal() and int(text) < _UNLIMITED else None


def locate(memberships: str, mounts: str) -> Cgroup | None:
    """The memory cgroup of a process, from its `/proc/<pid>/cgroup` and `/proc/<pid>/mountinfo` (proc(5))."""
    paths: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update((controller, path) for controller in controllers.split(","))
    for line in mounts.splitlines():
        fields, _, kind = line.partition(" - ")
        root, point = (field.encode().decode("unicode_escape") for field in fields.split()[3:5])
        version, _, options = kind.split(" ", 2)
        if version == "cgroup" and "memory" in options.split(",") and "memory" in paths:
            return Cgroup.v1(_below(point, root, paths["memory"]))
        if version == "cgroup2" and "memory" not in paths and "" in paths:
            return Cgroup.v2(_below(point, root, paths[""]))
    return None


def _below(point: str, root: str, path: str) -> str:
    return os.path.normpath(f"{point}/{os.path.relpath(path, root)}")


@lru_cache(maxsize=1)
def current() -> Cgroup | None:
    """The memory cgroup of this process, None where there is none."""
    try:
        with open("/proc/self/cgroup") as memberships, open("/proc/self/mountinfo") as mounts:
            return locate(memberships.read(), mounts.read())
    except OSError:
        return None


def make(name: str, limit: float) -> Cgroup | None:
    """A new cgroup with this limit in MiB; None where we may not make one.

    Beside ours where ours can't have any below it, as version 2 rules for groups with processes.
    """
    ours = current()
    for folder in () if ours is None else (ours.path, os.path.dirname(ours.path)):
        assert ours is not None
        made = type(ours)(os.path.join(folder, name), ours.limit, ours.swap, ours.events, ours.peak)
        try:
            _remove_abandoned(folder)
            os.mkdir(made.path)
        except OSError:
            continue
        try:
            size = int(limit * (1 << 20))
            made.write(made.limit, size)
            swap, together = made.swap
            if os.path.exists(os.path.join(made.path, swap)):
                made.write(swap, size if together else 0)
        except OSError:
            os.rmdir(made.path)
            continue
        return made
    return None


def _remove_abandoned(folder: str) -> None:
    """Remove the cgroups of supervisors that were killed; the name ends in the supervisor's pid."""
    for name in os.listdir(folder):
        pid = name.rpartition("-")[2]
        if name.startswith(_PREFIX) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):  # somebody else's, or something in it still runs
                os.rmdir(os.path.join(folder, name))


class Memory:
    """The memory of one attempt, from before its worker starts until after it ended."""

    def __init__(self, attempt: str, limit: float | None) -> None:
        self._limit = limit
        self._own = None if limit is None else make(f"{_PREFIX}{attempt}-{os.getpid()}", limit)
        self._watched = self._own or current()
        self._before = 0 if self._watched is None else self._watched.kills()

    def hold(self, pid: int) -> None:
        """Put a process, and all that it will start, below the limit."""
        if self._own is not None:
            try:
                self._own.write("cgroup.procs", pid)
                return
            except ProcessLookupError:
                return  # it ended at once
            except OSError:
                self.release()
        if self._limit is not None:
            limit_data(pid, self._limit)

    def shortage(self, killed: bool, peak: float) -> str | None:
        """What to say if the attempt ran out of memory, None if it did not.

        `killed`: its worker was ended by SIGKILL, and not by us; `peak`: MiB of its largest process.
        """
        if self._watched is None or self._watched.kills() <= self._before or not (killed or self._own is not None):
            return None
        limit = self._watched.mebibytes(self._watched.limit)
        used = self._watched.mebibytes(self._watched.peak) if self._own is not None else None
        return shortage_words(limit, peak if used is None else used)

    def release(self) -> None:
        """Give the cgroup back, once nothing runs in it any more; idempotent."""
        if self._own is not None:
            with contextlib.suppress(OSError):  # what can't be killed still runs in it
                os.rmdir(self._own.path)
            self._own = None
            self._watched = current()


def limit_data(pid: int, limit: float) -> None:
    """Let a process have so many MiB of data (RLIMIT_DATA, getrlimit(2)); one that is gone is no error."""
    size = int(limit * (1 << 20))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (size, size))


def shortage_words(limit: float | None, peak: float) -> str:
    """`out of memory (limit 512 MiB, peak 511 MiB)`."""
    facts: Sequence[str] = [*([] if limit is None else [f"limit {limit:.0f} MiB"]), f"peak {peak:.0f} MiB"]
    return f"out of memory ({', '.join(facts)})"
