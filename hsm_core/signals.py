"""What SIGINT, SIGTERM and SIGHUP do to a launcher while it holds a sweep."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)
"""each asks for the end of the sweep"""


@dataclass(frozen=True)
class Signal:
    """Posted to the engine for one of them: the first ends the sweep in order, the second at once."""

    signum: int


Listener = Callable[[int], None]
"""Is given a signal's number inside the signal's handler: it may hand that on or raise, and do nothing else."""


class Signals:
    """The launcher's signals, from `take` to `give_back`.

    They go to whoever listens. While nobody does - the sweep is being opened, a sweeper thinks
    between two batches - the first that asks for the end is kept for the next one to listen; the
    second ends the process by SystemExit, with 128 and the signal's number as its exit code.

    SIGHUP says that the terminal is gone: `hung_up` is called at once, in the handler, and says
    whether that changed anything. If so, the listener is told.
    """

    def __init__(self, hung_up: Callable[[], bool]) -> None:
        self.struck = 0
        """the signal that ended the process because nobody heard it, 0 for none"""
        self._hung_up = hung_up
        self._listener: Listener | None = None
        self._kept: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def take(self) -> None:
        """Handle the signals from now on, but for those that were ignored before, as under nohup.

        Outside the main thread, where Python allows no handlers, all stay as they are.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in (*ENDING, signal.SIGHUP):
            before = signal.getsignal(signum)
            if before not in (signal.SIG_IGN, None):  # None: set by other than Python code, and can't be given back
                self._before[signum] = before
                signal.signal(signum, self._handle)

    def give_back(self) -> int:
        """Let signals do again what they did before; idempotent. Returns the one that nobody heard, 0 for none."""
        while self._before:
            signal.signal(*self._before.popitem())
        return next((signum for signum in self._kept if signum in ENDING), 0)

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Give the signals to `listener` meanwhile, those first that were kept for it."""
        before, self._listener = self._listener, listener
        try:
            while self._kept:
                listener(self._kept.pop(0))
            yield
        finally:
            self._listener = before

    def _handle(self, signum: int, frame: object) -> None:
        if signum == signal.SIGHUP and not self._hung_up():
            return
        if self._listener is not None:
            self._listener(signum)
        elif signum not in ENDING or not any(kept in ENDING for kept in self._kept):
            self._kept.append(signum)
            _tell(signum)
        else:
            self.struck = signum
            raise SystemExit(128 + signum)


def _tell(signum: int) -> None:
    if signum in ENDING:
        words = f"\n{signal.Signals(signum).name}: the sweep ends as soon as it can; once more ends at once\n"
        # Not by way of sys.stderr, which may be in the middle of a write.
        with contextlib.suppress(OSError):
            os.write(2, words.encode())
