"""Signals of the launcher, handed to whoever decides about them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def caught(signums: Sequence[signal.Signals], post: Callable[[int], None]) -> Iterator[None]:
    """Give these signals to `post`, by number, instead of what they did; afterwards all is as before.

    `post` runs inside a signal handler: it may only hand the number on. Outside the main thread,
    where Python allows no handlers, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {
        signum: signal.signal(signum, lambda number, frame: post(number)) for signum in signums
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
