"""How often a scheduler is asked: it serves all users of the cluster."""

from __future__ import annotations

import time

BURST, EVERY = 2, 5.0
"""questions that may come at once, and seconds until there may be another"""


class Allowance:
    """`BURST` questions at once, and one more each `EVERY` seconds."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more may be asked now; then it counts."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) / EVERY)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
