"""The tasks' output on the launcher's terminal (`hydra.launcher.stream=true`).

A thread follows the output files of the running tasks; each line is shown with its task's name.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TextIO

from hsm_core import events as ev
from hsm_core.state import SweepState
from hsm_core.task import task_name
from hsm_core.text import printable

_INTERVAL = 0.2
_CHUNK = 1 << 20
"""bytes read of one file at a time; a line longer than that is shown in pieces"""


class _Follower:
    """How far one output file has been shown."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label
        self.offset = 0

    def lines(self, last: bool) -> list[str]:
        """New whole lines; with `last`, what stands after them too."""
        try:
            with open(self.path, "rb") as f:
                f.seek(self.offset)
                data = f.read(_CHUNK)
        except FileNotFoundError:
            return []
        if not last and len(data) < _CHUNK:
            data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        return [printable(line) for line in data.decode(errors="replace").splitlines()]


class Stream:
    """A listener that shows what the running tasks print."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._followed: dict[int, list[_Follower]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="hsm-stream", daemon=True)
        self._thread.start()

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if isinstance(event, ev.AttemptStarted) and event.output_dir is not None:
            folder = Path(event.output_dir)
            with self._lock:
                self._followed[event.task] = [
                    _Follower(folder / name, task_name(event.task)) for name in ("stdout.log", "stderr.log")
                ]
        elif isinstance(event, ev.AttemptFinished):
            with self._lock:
                for follower in self._followed.pop(event.task, []):
                    while self._show(follower, last=True):
                        continue

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closed.wait(_INTERVAL):
            with self._lock:
                for followers in self._followed.values():
                    for follower in followers:
                        self._show(follower, last=False)

    def _show(self, follower: _Follower, last: bool) -> bool:
        lines = follower.lines(last)
        # Looked up anew: the live line of `hsm_core.listeners.progress` takes sys.stdout's place while it is shown.
        out = sys.stdout if self._out is None else self._out
        with contextlib.suppress(OSError):  # the terminal is gone; its lines are in the tasks' files
            for line in lines:
                out.write(f"[{follower.label}] {line}\n")
            out.flush()
        return bool(lines)
