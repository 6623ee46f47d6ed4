"""How often a scheduler is asked, and when there is a batch for it: it serves all users of the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST, EVERY = 2, 5.0
"""calls of a scheduler's programs that may come at once, and seconds until there may be another"""
GATHER, LONGEST = 0.3, 1.0
"""seconds without another attempt after which no more are expected, and since the first one after which it does not
matter"""
HOLD = 60.0
"""seconds that an attempt waits at most for others to fill its batch"""


class Allowance:
    """`BURST` calls at once, and one more each `EVERY` seconds; `calls`: how many there were, earlier ones too."""

    def __init__(self, calls: Callable[[], int]) -> None:
        self._calls = calls
        self._counted = calls()
        self._left = float(BURST)
        self._at = time.monotonic()

    def free(self, count: int = 1) -> bool:
        """Whether so many calls may be made now."""
        now, calls = time.monotonic(), self._calls()
        earned = min(BURST, self._left + (now - self._at) / EVERY)
        self._left = earned - (calls - self._counted)  # a question may have taken more calls than were free
        self._at, self._counted = now, calls
        return self._left >= count


def due(waiting: int, most: int, pending: int, quiet: float, held: float) -> bool:
    """Whether attempts that wait here go out as a batch.

    Attempts come one by one as slots get free. What pends in the scheduler keeps the cluster busy; a batch that is not
    full goes out once as many wait here as pend there, or it has waited for `HOLD` seconds. `most`: elements of a full
    one; `quiet`, `held`: seconds since the last attempt came, and since the first.
    """
    if waiting == 0 or waiting >= most:
        return waiting > 0
    return held >= HOLD or (waiting >= pending and (quiet >= GATHER or held >= LONGEST))
