"""Which task each of a sweeper's jobs is: resuming goes by what a job is, not by where it stands."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hsm_core.state import TaskRecord
from hsm_core.task import Task, task_key


class Points:
    """The points of a sweep by the key of their overrides. Numbers, once given, are never changed.

    `known` are the tasks of earlier launchers; new points are numbered behind them.
    """

    def __init__(self, known: Mapping[int, TaskRecord], requires_gpu: bool = False) -> None:
        self._numbers = {task.key: task.index for task in known.values()}
        self._unasked = set(known)
        self._behind = itertools.count(max(known) + 1) if known else None
        self._seen: Counter[str] = Counter()
        self._requires_gpu = requires_gpu

    @property
    def unasked(self) -> int:
        """How many known points no job has been so far."""
        return len(self._unasked)

    def tasks(self, jobs: Iterable[Sequence[str]], first_index: int) -> Iterator[Task]:
        """The task of each job, made as it is asked for; without known points they count from `first_index`.

        A point that comes up again in the same launcher is a task of its own.
        """
        numbers = self._behind or itertools.count(first_index)
        for job in jobs:
            overrides = tuple(job)
            key = task_key(overrides)
            self._seen[key] += 1
            if self._seen[key] > 1:
                key = task_key(overrides, self._seen[key] - 1)
            index = self._numbers.get(key)
            if index is None:
                index = self._numbers[key] = next(numbers)
            self._unasked.discard(index)
            yield Task(index, overrides, key, self._requires_gpu)
