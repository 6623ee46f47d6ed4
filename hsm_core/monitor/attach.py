"""Following a sweep as if its launcher ran here: what that prints, and how far the sweep is."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from hsm_core.event_text import Line
from hsm_core.launcher_log import log_path
from hsm_core.listeners.terminal import LiveLine, PlainLines
from hsm_core.monitor.watch import RECENT, Watch, status_line
from hsm_core.owner import current
from hsm_core.text import clock, printable

_LAST_WORDS = 3.0
"""seconds that a launcher has to end in once its sweep has; what it says until then is shown"""
_CHUNK = 1 << 16
"""bytes of the log that are read at a time; a line longer than that is shown in pieces"""


def attach(watch: Watch, directory: Path, stream: TextIO, interval: float) -> None:
    """Show on `stream` what comes, until the sweep is over; look every `interval` seconds.

    A launcher without a terminal is shown by its log. What any other prints can't be seen from
    here: what happens is told instead. On a terminal a live line at the bottom tells how far the
    sweep is.
    """
    hsm = directory / ".hsm"
    out = LiveLine(stream, lambda: status_line(watch.figures)) if stream.isatty() else PlainLines(stream)
    watch.poll()
    log = _Log(log_path(hsm, watch.epoch))
    told = log.last_lines(RECENT) if log.exists() else _told(watch.recent)
    give_up = float("inf")
    try:
        out.open()
        while True:
            for text, level in told:
                out.say(text, level)
            if watch.over:
                give_up = min(give_up, time.monotonic() + _LAST_WORDS)
                if not log.exists() or not _lives(hsm) or time.monotonic() >= give_up:
                    break
            time.sleep(interval)
            news = watch.poll()
            if log.path != log_path(hsm, watch.epoch):  # another launcher goes on with the sweep
                log = _Log(log_path(hsm, watch.epoch))
            told = log.lines() if log.exists() else _told(news)
        for text, level in log.lines():
            out.say(text, level)
    finally:
        out.close()
    PlainLines(stream).say(status_line(watch.figures), logging.INFO)


def _told(news: Iterable[tuple[float, Line]]) -> list[tuple[str, int]]:
    return [(f"[{clock(at)}] {line.text}", line.level) for at, line in news]


def _lives(hsm: Path) -> bool:
    owner = current(hsm)
    return owner is not None and owner.alive is True


class _Log:
    """How far the log of one launcher has been read. Its lines are escaped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def exists(self) -> bool:
        return self.path.exists()

    def last_lines(self, count: int) -> list[tuple[str, int]]:
        """The last lines that are there by now, at most so many; `lines` goes on behind them."""
        self._offset = max(0, os.stat(self.path).st_size - _CHUNK)
        return self.lines()[-count:]

    def lines(self) -> list[tuple[str, int]]:
        """The whole lines that came since, each with the level to show it at; none while there is no log."""
        found: list[tuple[str, int]] = []
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return found
        with file:
            file.seek(self._offset)
            while True:
                file.seek(self._offset)
                data = file.read(_CHUNK)
                end = data.rfind(b"\n") + 1 or (_CHUNK if len(data) == _CHUNK else 0)
                if not end:
                    return found
                self._offset += end
                whole = data[:end].decode("utf-8", "replace").removesuffix("\n")
                found += [(printable(text), logging.INFO) for text in whole.split("\n")]
