"""Attempts that wait to go out in a batch: until what they ask for is known, and no more come with it for a moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from hsm_core.sources.hpc.needs import Needs
from hsm_core.task import Attempt

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 60.0
"""seconds after a submission that failed; twice as long after each further one, up to the longest"""


class Waiting:
    """In the order in which they are to go out. The caller has the lock of those who share it."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self.attempts: list[Attempt] = []
        self._came_at = self._not_before = 0.0
        """when the last of them came, and when the next batch may go out after one that did not"""
        self._pause = FIRST_PAUSE

    def add(self, attempts: Iterable[Attempt]) -> None:
        self.attempts += attempts
        self._came_at = time.monotonic()

    def drop(self, ids: Collection[str]) -> list[Attempt]:
        """Those with these ids, which wait no more."""
        dropped = [attempt for attempt in self.attempts if attempt.id in ids]
        self.attempts = [attempt for attempt in self.attempts if attempt.id not in ids]
        return dropped

    def next(self, most: int, gather: float) -> list[Attempt]:
        """Those that go out in a batch now, which have at most so many; they wait until they are dropped.

        `gather`: seconds without another attempt after which a batch is complete that could be larger. What they all
        ask for must be known.
        """
        now = time.monotonic()
        if not self.attempts or now < self._not_before:
            return []
        taken = self._needs.equal(self.attempts, most)
        return taken if len(taken) >= most or now - self._came_at >= gather else []

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """Those of a batch that was not taken; the next one goes out after a pause."""
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.attempts[:0] = attempts

    def taken(self) -> None:
        """A batch was taken."""
        self._pause = FIRST_PAUSE
