"""The tasks of a run that wait: for the sweeper, for a slot, or for the time of their next attempt."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Iterator

from hsm_core.task import Task

LOOKAHEAD = 64
"""tasks that are taken from the sweeper before there is a slot for them"""


class Backlog:
    """First come, first served; a task that is to be tried again goes before those that never were."""

    def __init__(self) -> None:
        self._incoming: Iterator[Task] = iter(())
        self._pending: deque[Task] = deque()
        self._delayed: list[tuple[float, int, Task]] = []
        self.exhausted = True
        """whether the sweeper has handed over its last task"""

    def __bool__(self) -> bool:
        """Whether a task waits for nothing but a slot."""
        return bool(self._pending)

    def open(self, tasks: Iterable[Task]) -> None:
        """Take tasks from here from now on."""
        self._incoming, self.exhausted = iter(tasks), False

    def arrivals(self) -> Iterator[Task]:
        """Take in tasks while fewer than LOOKAHEAD wait; the caller puts back each that needs an attempt."""
        while not self.exhausted and len(self._pending) < LOOKAHEAD:
            task = next(self._incoming, None)
            if task is None:
                self.exhausted = True
                return
            yield task

    def put(self, task: Task) -> None:
        """Behind all others."""
        self._pending.append(task)

    def put_first(self, *tasks: Task) -> None:
        """Before all others, in this order."""
        self._pending.extendleft(reversed(tasks))

    def put_later(self, task: Task, delay: float) -> None:
        """Behind all others that wait `delay` seconds from now."""
        heapq.heappush(self._delayed, (time.monotonic() + delay, task.index, task))

    def pop(self) -> Task:
        """The next task. Raises IndexError when none waits."""
        return self._pending.popleft()

    def wake(self, now: float) -> None:
        """Put those whose time has come, by the monotonic clock, among the others."""
        while self._delayed and self._delayed[0][0] <= now:
            self._pending.append(heapq.heappop(self._delayed)[2])

    @property
    def wakes_at(self) -> float:
        """The monotonic time at which the next delayed task is due; infinite when there is none."""
        return self._delayed[0][0] if self._delayed else float("inf")
