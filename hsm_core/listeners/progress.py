"""What the launcher shows while the sweep runs.

On a terminal one live line at the bottom, and above it a line for every event worth seeing;
elsewhere plain lines only. Either way a failed task is shown when it fails, with its traceback.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hsm_core import events as ev
from hsm_core.event_text import Line, accepted, ended, level_number, line
from hsm_core.listeners.error_files import error_path
from hsm_core.listeners.terminal import LiveLine, PlainLines
from hsm_core.remote.names import task_name
from hsm_core.state import SweepState
from hsm_core.summary import count_words, eta_words, figures
from hsm_core.task import Cause
from hsm_core.task_files import STDERR, output_folder, traceback_text
from hsm_core.text import clock, printable

_EVERY_SECONDS = 30.0
_WORTH_SEEING = (
    ev.SweepResumed,
    ev.SourceStarted,
    ev.SourceUp,
    ev.CommandDone,
    ev.Note,
    ev.SweepFinished,
)
"""Events told at level INFO; of all others only the warnings and errors are, unless the level is DEBUG."""
_ROUTINE = (ev.TaskAdded, ev.AttemptSubmitted, ev.AttemptStarted)
"""events that are never warnings: most of a sweep's"""


class Progress:
    """A listener that shows the sweep in `directory` on `stream`.

    Lines below `level` are left out. Losing the terminal ends the display and nothing else; where
    the stream then leads elsewhere, to a log, plain lines go on there.
    """

    def __init__(self, directory: Path, stream: TextIO | None = None, level: str = "INFO") -> None:
        self._directory = directory
        self._threshold = level_number(level)
        self._shown: dict[bytes, str] = {}
        self._state: SweepState | None = None
        self._begun = time.monotonic()
        self._ended = 0
        self._told: tuple[int, float] = (0, 0.0)
        self._stream = sys.stderr if stream is None else stream
        self._place = _place(self._stream)
        self._live = self._stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self._out: LiveLine | PlainLines | None
        self._out = LiveLine(self._stream, self.status) if self._live else PlainLines(self._stream)

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if self._live and _place(self._stream) != self._place:
            self.close()
            self._live, self._out = False, PlainLines(self._stream)
        if self._out is None:
            return
        if self._state is None:
            self._told = (_tenth(state), at)
        self._state = state
        done = ended(event, state) is not None
        self._ended += done
        try:
            self._out.open()
            for text, level in self._lines(event, state, at):
                self._out.say(text, level)
            if not self._live and self._due(state, done, at):
                self._out.say(f"[{clock(at)}] {self.status()}", logging.INFO)
                self._told = (_tenth(state), at)
        except OSError:
            # The terminal or the reader of the pipe is gone; the sweep needs neither.
            self.close()

    def close(self) -> None:
        """The live line is gone and the terminal as it was, if it is there; idempotent."""
        if self._out is not None:
            out, self._out = self._out, None
            with contextlib.suppress(OSError):
                out.close()

    def status(self) -> str:
        """How far the sweep is, in one line; empty before the first event.

        The live line asks for it from a thread of its own.
        """
        if self._state is None:
            return ""
        now = figures(self._state)
        parts = [count_words(now)]
        seconds = time.monotonic() - self._begun
        if self._ended and seconds > 0:
            rate = self._ended / seconds
            parts.append(f"{rate:.1f} tasks/s" if rate >= 1 else f"{rate * 60:.1f} tasks/min")
        return ", ".join([*parts, eta_words(now)]).removesuffix(", ")

    def _due(self, state: SweepState, done: bool, at: float) -> bool:
        tenth, when = self._told
        return (done and _tenth(state) != tenth) or (state.active > 0 and abs(at - when) >= _EVERY_SECONDS)

    def _lines(self, event: ev.Event, state: SweepState, at: float) -> Iterator[tuple[str, int]]:
        if isinstance(event, _ROUTINE) and self._threshold > logging.DEBUG:
            return
        told = line(event, state)
        if told is None or not self._wanted(event, told):
            return
        yield f"[{clock(at)}] {told.text}", told.level
        if isinstance(event, ev.AttemptFinished) and not event.outcome.completed and accepted(event, state):
            for text in self._failure(event, state):
                yield text, logging.INFO
        if isinstance(event, ev.SweepFinished):
            for text in self._closing(event, state):
                yield text, logging.INFO

    def _wanted(self, event: ev.Event, told: Line) -> bool:
        if told.level < self._threshold:
            return False
        return told.level >= logging.WARNING or self._threshold <= logging.DEBUG or isinstance(event, _WORTH_SEEING)

    def _failure(self, event: ev.AttemptFinished, state: SweepState) -> Iterator[str]:
        """Overrides, traceback and log of a failed attempt. The same traceback is shown in full once."""
        if event.outcome.cause is Cause.CANCELLED:
            return
        name = task_name(event.task)
        yield f"  overrides: {printable(' '.join(state.tasks[event.task].overrides), 2000)}"
        trace = traceback_text(self._directory, event.outcome)
        if trace:
            digest = hashlib.sha256(trace.encode("utf-8", "backslashreplace")).digest()[:8]
            first = self._shown.setdefault(digest, name)
            yield trace if first == name else f"  the traceback is that of {first}, above"
        folder = output_folder(self._directory, event.outcome)
        if folder is not None:
            yield f"  log: {printable(str(folder / STDERR))}"
        if event.retry_in is None:
            yield f"  all of it: {printable(str(error_path(self._directory, event.task)))}"

    def _closing(self, event: ev.SweepFinished, state: SweepState) -> Iterator[str]:
        now = figures(state)
        if now.ended:
            yield f"  results: {printable(str(self._directory / 'reports' / 'results.csv'))}"
        if now.failed and event.status == "finished":
            yield f"  to run the failed tasks again: hsm complete {printable(now.id)} --retry-failed"


def _place(stream: TextIO) -> tuple[int, int] | None:
    """Which file or terminal a stream leads to; None for one that leads to none."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return None
    return found.st_dev, found.st_ino


def _tenth(state: SweepState) -> int:
    return 10 * state.ended // state.total if state.total else 0
