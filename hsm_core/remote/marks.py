"""Finding and ending all processes of a sweep, whoever started them: each carries a mark in its environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from hsm_core.remote import process

MARK = "HSM_MARK"
"""variable in the environment of every process of a sweep: sweep directory, epoch, source"""


def mark(directory: str | os.PathLike[str], epoch: int, source: str) -> str:
    """The mark of what one launcher's source runs."""
    return f"{os.fspath(directory)}:{epoch}:{source}"


def marked(beginning: str, below: int | None = None) -> list[int]:
    """Pids of processes whose mark begins so, but for our own; with `below`, only those of earlier epochs."""
    found = []
    for pid, value in _marks():
        if pid == os.getpid() or not value.startswith(beginning):
            continue
        if below is None or int(value[len(beginning) :].split(":")[0]) < below:
            found.append(pid)
    return found


def command(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return os.fsdecode(f.read()).split("\0")[:-1]
    except OSError:
        return _command_elsewhere(pid)


def end_processes(beginning: str, below: int | None = None, patience: float = 3.0) -> None:
    """End all processes so marked. Afterwards none is left.

    Agents get `patience` seconds to end their tasks and leave records; the rest is killed.
    """
    found = marked(beginning, below)
    for pid in found:
        if "agent" in command(pid):
            process.send(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while found:
        if time.monotonic() >= deadline:
            for pid in found:
                process.send(pid, signal.SIGKILL)
        time.sleep(0.01)
        found = marked(beginning, below)


def _marks() -> Iterator[tuple[int, str]]:
    if not os.path.isdir("/proc/self"):
        yield from _marks_elsewhere()
        return
    key = f"{MARK}=".encode()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            # Those of others can't be read; a zombie has none.
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as f:
                for entry in f.read().split(b"\0"):
                    if entry.startswith(key):
                        yield int(name), os.fsdecode(entry[len(key) :])
                        break


def _marks_elsewhere() -> Iterator[tuple[int, str]]:
    try:
        import psutil
    except ImportError:  # not everywhere on the compute side
        return
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            yield candidate.pid, candidate.environ().get(MARK, "")


def _command_elsewhere(pid: int) -> list[str]:
    try:
        import psutil
    except ImportError:
        return []
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []
