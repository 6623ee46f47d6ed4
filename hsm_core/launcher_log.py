"""The log of a launcher that has no terminal: `.hsm/launcher_0001.log`, by the launcher's epoch.

Whatever it and the app in its process print goes there, and `hsm attach` shows it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def log_path(hsm_dir: Path, epoch: int) -> Path:
    """Where the log of this launcher is, once it has one."""
    return hsm_dir / f"launcher_{epoch:04d}.log"


def let_go_of_terminal(log: Path) -> bool:
    """Have this process's output go to `log`, and its input come from nowhere; False if that was so before.

    Output that goes to a file goes on doing so; a pipe's reader is taken to be gone with the
    terminal. Where the log can't be opened the output is lost. Only system calls are made, so
    that a signal's handler may call this.
    """
    tied = [fd for fd in (0, 1, 2) if _is_tied(fd)]
    if not tied:
        return False
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        out = os.dup(nothing)
    for fd in tied:
        os.dup2(nothing if fd == 0 else out, fd)
    os.close(nothing)
    os.close(out)
    return True


def _is_tied(fd: int) -> bool:
    """Whether a standard stream leads to a terminal, also one that is gone, or to another process."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev != os.stat(os.devnull).st_rdev
    return fd != 0 and (stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode))
