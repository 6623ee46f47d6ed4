"""Processes: what the kernel offers to find and end everything a task started.

Linux gives a parent-death signal and child subreapers (prctl(2)); elsewhere a task's process
group is all that can be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STUBBORN = 10.0
"""seconds in which a killed process ends, if it ever does"""

LINUX = sys.platform == "linux"
_prctl = ctypes.CDLL(None, use_errno=True).prctl if LINUX else None


def interpreter_flags() -> list[str]:
    """The flags this interpreter was started with (-X, -W, -O, ...), for another one of the same kind."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]


def die_with_parent(signum: int, parent: int) -> None:
    """Have the kernel send `signum` to this process when its parent `parent` ends.

    A parent that is already gone counts: the signal is sent at once. Any handler for it must
    be in place before.
    """
    if _prctl is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The direct children of a process; empty when it is gone or the system doesn't tell."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as f:
                found += map(int, f.read().split())
    except OSError:
        return found
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first."""
    found: list[int] = []
    todo = children(pid)
    while todo:
        found += todo
        todo = [grandchild for child in todo for grandchild in children(child)]
    return found


def reap() -> None:
    """Collect all ended children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def end_descendants(signals: int, patience: float, reap: Callable[[], None]) -> int:
    """End all processes below this one, after `patience` seconds by force; returns how many needed that.

    `reap` collects those that ended; `signals` is a `wakeup_pipe` that hears of SIGCHLD. One that can't be killed
    (in an uninterruptible system call) is left alone in the end.
    """
    killed: set[int] = set()
    began = time.monotonic()
    while (found := descendants(os.getpid())) and time.monotonic() < began + patience + _STUBBORN:
        if time.monotonic() >= began + patience:
            killed.update(found)
            for pid in found:
                send(pid, signal.SIGKILL)
        select.select([signals], [], [], 0.05)
        drain(signals)
        reap()
    return len(killed)


def send(pid: int, signum: int, *, group: bool = False) -> None:
    """Signal a process, or its process group; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, signum)


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal, as far as the system tells (proc(5), SigCgt)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            caught = next((line.split()[1] for line in f if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (signum - 1) & 1)


def reset_signals() -> None:
    """Undo the signal handling that a forked child inherited from our own loops."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wakeup_pipe(*signums: int) -> int:
    """A non-blocking file descriptor that becomes readable when one of the signals comes.

    Reading it gives the signal numbers as bytes (`signal.set_wakeup_fd`).
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for signum in signums:
        signal.signal(signum, _noted)
    return read


def _noted(signum: int, frame: object) -> None:
    """The wake-up pipe has the signal's number; nothing is left to do here."""


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of it: a signal may end a long write(2) in the middle. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_to(log: str, *descriptors: int) -> None:
    """Have these descriptors write to the end of a file, which is made for this user alone."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in descriptors:
        os.dup2(file, descriptor)
    os.close(file)


def drain(fd: int) -> bytes:
    """Everything that can be read from a non-blocking descriptor now."""
    data = b""
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
    except BlockingIOError:
        pass
    return data
