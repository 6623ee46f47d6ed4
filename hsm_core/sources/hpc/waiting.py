"""Attempts that wait to go out in a batch: until what they ask for is known, and it is time for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

from hsm_core.sources.hpc.needs import Needs
from hsm_core.task import Attempt

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 60.0
"""seconds after a submission that failed; twice as long after each further one, up to the longest"""


class Waiting:
    """In the order in which they are to go out. The caller has the lock of those who share it."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self.attempts: list[Attempt] = []
        self._held_since = self._came_at = self._not_before = 0.0
        """when the first and the last of them came, and when the next batch may go out after one that did not"""
        self._pause = FIRST_PAUSE

    def add(self, attempts: Iterable[Attempt]) -> None:
        self._came_at = time.monotonic()
        self._held_since = self._held_since if self.attempts else self._came_at
        self.attempts += attempts

    def drop(self, ids: Collection[str]) -> list[Attempt]:
        """Those with these ids, which wait no more."""
        dropped = [attempt for attempt in self.attempts if attempt.id in ids]
        self.attempts = [attempt for attempt in self.attempts if attempt.id not in ids]
        return dropped

    def next(self, most: int, due: Callable[[Sequence[Attempt], float, float], bool]) -> list[Attempt]:
        """Those that go out in a batch now, at most so many; they wait until they are taken.

        `due` says whether some that ask for the same are to go out, given the seconds since the last attempt came, and
        since the first. What all of them ask for must be known.
        """
        now = time.monotonic()
        if now < self._not_before:
            return []
        quiet, held = now - self._came_at, now - self._held_since
        ripe = (group for group in self._needs.groups(self.attempts) if due(group, quiet, held))
        return next(ripe, [])[:most]

    def take(self, ids: Collection[str]) -> list[Attempt]:
        """Those with these ids, which go out; the others wait anew."""
        self._held_since = time.monotonic()
        return self.drop(ids)

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """Those of a batch that was not taken; the next one goes out after a pause."""
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.attempts[:0] = attempts

    def taken(self) -> None:
        """A batch was taken."""
        self._pause = FIRST_PAUSE
