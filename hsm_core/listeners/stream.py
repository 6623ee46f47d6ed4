"""The tasks' output on the launcher's terminal (`hydra.launcher.stream=true`).

A thread follows the output files of the running tasks; each line is shown with its task's name.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from pathlib import Path
from typing import TextIO

from hsm_core import events as ev
from hsm_core.remote.names import task_name
from hsm_core.remote.output import STREAMS, TAIL
from hsm_core.state import SweepState
from hsm_core.text import printable, size

_INTERVAL = 0.2
_CHUNK = 1 << 20
"""bytes read of one file at a time; a line longer than that is shown in pieces"""
_BEHIND = 4 << 20
"""bytes the terminal may be behind a file; what is older then is left out"""


class _Follower:
    """How far one output file has been shown."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label
        self.offset = 0
        self.last = False
        """whether nothing more is written to it"""

    def lines(self) -> list[str]:
        """New whole lines, and what stands after them too once nothing more comes; none when all has been shown."""
        try:
            # A task may leave a pipe or a link under any name: neither is waited for nor followed.
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(file, "rb") as f:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    return []
                left_out = self._catch_up(found.st_size)
                f.seek(self.offset)
                data = f.read(_CHUNK)
        except OSError:
            return []
        if not self.last and len(data) < _CHUNK:
            data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        return left_out + [printable(line) for line in data.decode(errors="replace").splitlines()]

    def _catch_up(self, end: int) -> list[str]:
        """Pass over what is too much to show, or was cut off; says so in a line."""
        if end < self.offset:
            # The latest lines may have come and been kept since the last look: rather twice than never.
            self.offset = max(0, end - TAIL)
            return [f"(cut short, the latest of it follows; all that is kept: {printable(str(self.path))})"]
        behind = end - self.offset
        if behind <= _BEHIND:
            return []
        self.offset = end - _CHUNK
        return [f"({size(behind - _CHUNK)} left out here; all of it: {printable(str(self.path))})"]


class Stream:
    """A listener that shows what the running tasks print.

    Showing is up to the thread, however much there is: the engine, which calls this, never waits for a terminal.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._followed: list[_Follower] = []
        self._running: dict[int, list[_Follower]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="hsm-stream", daemon=True)
        self._thread.start()

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if isinstance(event, ev.AttemptStarted) and event.output_dir is not None:
            folder = Path(event.output_dir)
            followers = [_Follower(folder / name, task_name(event.task)) for name in STREAMS]
            with self._lock:
                self._running[event.task] = followers
                self._followed += followers
        elif isinstance(event, ev.AttemptFinished):
            for follower in self._running.pop(event.task, []):
                follower.last = True

    def close(self) -> None:
        """Shows the rest of what was followed; afterwards nothing more is shown. Idempotent."""
        self._closed.set()
        self._thread.join()

    def _follow(self) -> None:
        closed = False
        while not closed:
            closed = self._closed.wait(_INTERVAL)
            with self._lock:
                followed = list(self._followed)
            for follower in followed:
                # Looked at before reading: what comes to be last while we read is read once more.
                last = follower.last
                while self._show(follower) and last:
                    continue
                if last:
                    with self._lock:
                        self._followed.remove(follower)

    def _show(self, follower: _Follower) -> bool:
        lines = follower.lines()
        # Looked up anew: the live line of `hsm_core.listeners.progress` takes sys.stdout's place while it is shown.
        out = sys.stdout if self._out is None else self._out
        with contextlib.suppress(OSError):  # the terminal is gone; its lines are in the tasks' files
            for line in lines:
                out.write(f"[{follower.label}] {line}\n")
            out.flush()
        return bool(lines)
