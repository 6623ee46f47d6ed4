"""The end of a sweep before its tasks are done: why, what is left running, how long the rest is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Set

from hsm_core.exceptions import SweepInterrupted, SweepStopped
from hsm_core.sources.base import Source
from hsm_core.task import Attempt

CLEARANCE = 5.0
"""seconds beyond their grace time that tasks have to end in"""


class Ending:
    """Nothing at first; `begin` makes it the end of one launcher's sweep."""

    def __init__(self, grace: float) -> None:
        self.why: SweepStopped | None = None
        self.leaving: Set[str] = frozenset()
        """names of the sources whose tasks go on without this launcher"""
        self._grace = grace
        self._deadline = float("inf")

    def begin(self, why: SweepStopped, leaving: Set[str] = frozenset()) -> bool:
        """From now on the sweep ends, unless it does already: then False, and nothing is changed."""
        if self.why is not None:
            return False
        self.why, self.leaving = why, leaving
        self._deadline = time.monotonic() + self._grace + CLEARANCE
        return True

    def hurry(self) -> None:
        """Wait for nothing any more. Does nothing before `begin`."""
        self._deadline = 0.0
        if isinstance(self.why, SweepInterrupted):
            self.why.at_once = True

    @property
    def moment(self) -> float:
        """The monotonic time at which the waiting is over; infinite before `begin`."""
        return self._deadline

    def reached(self, attempts: Iterable[Attempt]) -> bool:
        """Whether the sweep has ended: none of these is still waited for, or it takes too long."""
        if self.why is None:
            return False
        return time.monotonic() >= self._deadline or all(a.source in self.leaving for a in attempts)


def to_leave(sources: Iterable[Source], why: SweepInterrupted) -> tuple[Set[str], str]:
    """The names of the sources whose tasks an interrupt leaves running, and words on that for people."""
    leaving = {source.name for source in sources if why.leave and source.outlives_launcher}
    if leaving:
        return leaving, f" but those on {', '.join(sorted(leaving))}"
    return leaving, " (no source of this sweep runs them without the launcher)" if why.leave else ""
