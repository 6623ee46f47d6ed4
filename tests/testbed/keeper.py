"""A process that starts a program again and again, and at its end leaves nothing alive that came from it.

A daemon forks twice and is nobody's child any more; so do the supervisors of Slurm's jobs. The keeper is what such
orphans fall to (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so whatever the program leaves behind is found below it. It ends
once its standard input does: when we ask for it, or are gone, even where we were killed.

Each line on its standard input is a JSON list of command, log file and environment, and is answered with a process id.
It runs as a script of its own, so it needs no more than the standard library, and is there at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        print(_start(*json.loads(line)), flush=True)
    # Whose parent is killed is our own child next.
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _start(command: list[str], log: str, environ: dict[str, str]) -> int:
    return os.posix_spawnp(
        command[0],
        command,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
    )


def _children() -> list[int]:
    ours = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, NotADirectoryError):
            if name.isdigit():
                with open(f"/proc/{name}/stat") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == os.getpid():
                        ours.append(int(name))
    return ours


def _reap(_signal: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    main()
