"""`fail_fast`: how many failed tasks are too many for one launcher."""

from __future__ import annotations

from hsm_core.exceptions import FailFast
from hsm_core.state import SweepState
from hsm_core.task import TaskState

LEAST = 10
"""tasks that a fraction is taken of at least, while the sweeper may hand over more than are known"""


class FailureLimit:
    """Counts the tasks that fail under this launcher.

    Failures from before a resume don't count: who resumes knows them, and with `--retry-failed`
    they are to be mended. `limit` is a number of tasks (1 or more), a fraction of them (below 1) or
    None for no limit. A fraction is one of the whole sweep's tasks as far as they are known; where the
    sweeper hands them over bit by bit, of `LEAST` at least, or its first failure would be all of one.
    """

    def __init__(self, limit: float | None, *, all_known: bool = True) -> None:
        self._limit = limit
        self._least = 0 if all_known else LEAST
        self._failed = 0

    def count(self, state: SweepState) -> FailFast | None:
        """Count one more failed task; what is to end the sweep, if that was one too many."""
        self._failed += 1
        limit = self._limit
        if limit is None or self._failed < (limit if limit >= 1 else limit * max(state.total, self._least)):
            return None
        since = " since the sweep was resumed" if state.counts[TaskState.FAILED] > self._failed else ""
        told = f"{self._failed} of {state.total} tasks failed{since}"
        return FailFast(f"{told}, as many as fail_fast={limit:g} allows")
