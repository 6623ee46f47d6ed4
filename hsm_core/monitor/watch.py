"""Following a sweep by its journal until it ends: live tables, plain lines, or JSON."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hsm_core.event_text import Line, line
from hsm_core.journal import Tail
from hsm_core.owner import current
from hsm_core.state import SweepState, apply
from hsm_core.summary import LAUNCHER_GONE, Figures, count_words, eta_words, exit_code, figures, status_words
from hsm_core.text import clock

RECENT = 10
"""lines of recent activity that the live view shows"""


class Watch:
    """What is known of the sweep in `directory`, from its journal as far as that has been read."""

    def __init__(self, directory: Path) -> None:
        self._hsm = directory / ".hsm"
        self._tail = Tail(self._hsm / "journal.jsonl")
        self._state = SweepState()
        self.recent: deque[tuple[float, Line]] = deque(maxlen=RECENT)
        """times (seconds since 1970) and lines, oldest first"""
        self.figures: Figures = figures(self._state)

    def poll(self) -> list[tuple[float, Line]]:
        """Read on; returns the lines worth showing that came. Afterwards `figures` and `recent` are as of now.

        Raises JournalError when the journal can't be read on.
        """
        # Asked first: had the owner gone after the journal was read, its last lines would be missed.
        owner = current(self._hsm)
        news = []
        for entry in self._tail.poll():
            if entry.event is None:
                continue
            apply(self._state, entry.event, entry.at)
            told = line(entry.event, self._state)
            if told is not None and told.level >= logging.INFO:
                news.append((entry.at, told))
        self.recent.extend(news)
        self.figures = figures(self._state, owner)
        return news

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.figures.status not in ("empty", "running")

    @property
    def exit_code(self) -> int:
        """The exit code with which the launcher left the sweep, once that is over."""
        return exit_code(self._state)

    @property
    def epoch(self) -> int:
        """The epoch of the launcher that runs the sweep, or ran it last."""
        return self._state.epoch

    @property
    def launcher_gone(self) -> bool:
        """Whether the sweep stands still because its launcher ended without a word."""
        return self.figures.status == LAUNCHER_GONE


def watch_screen(watch: Watch, interval: float | None) -> None:
    """Draw the tables on the terminal, anew every `interval` seconds until the sweep is over; None: once."""
    from rich.console import Console
    from rich.live import Live

    from hsm_core.monitor.view import screen

    console = Console()
    watch.poll()
    if interval is not None:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not watch.over:
                live.update(screen(watch.figures, watch.recent, interval), refresh=True)
                time.sleep(interval)
                watch.poll()
    console.print(screen(watch.figures, watch.recent, None))


def watch_changes(watch: Watch, interval: float, show: Callable[[Figures, list[str]], None]) -> None:
    """Hand over the figures, and what happened as plain lines: at once, and with every change until the sweep is over.

    What happened before is told by the figures only.
    """
    watch.poll()
    show(watch.figures, [status_line(watch.figures)])
    while not watch.over:
        time.sleep(interval)
        before = watch.figures
        lines = [f"[{clock(at)}] {told.text}" for at, told in watch.poll()]
        if _counts(watch.figures) != _counts(before):
            lines.append(status_line(watch.figures))
        if lines or watch.figures != before:
            show(watch.figures, lines)


def status_line(now: Figures) -> str:
    """The figures in one line."""
    eta = eta_words(now)
    return f"{status_words(now)}: {count_words(now)}{f', {eta}' if eta else ''}"


def _counts(now: Figures) -> tuple[str, int, int, int]:
    return now.status, now.completed, now.failed, now.total
