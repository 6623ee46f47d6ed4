"""Whether, and when, a failed attempt is followed by another."""

from __future__ import annotations

from collections.abc import Mapping

from hsm_core.config import ComputeConfig
from hsm_core.task import Cause, Outcome

LOST_LIMIT = 3
"""workers a task may take down with it before it is given up"""
_LONGEST_DELAY = 3600.0


def retry_delay(config: ComputeConfig, outcome: Outcome, earlier: Mapping[str, int]) -> float | None:
    """Seconds until the next attempt, None if there is to be none.

    `earlier` counts the failed attempts of the task by cause, this one not included. Attempts
    that were preempted, or ended by the sweep's own stop, are always made up for.
    """
    if outcome.completed:
        return None
    failures = earlier.get(outcome.cause.value, 0) if outcome.cause is not None else 0
    if outcome.cause in (Cause.PREEMPTED, Cause.CANCELLED):
        return 0.0
    if outcome.cause is Cause.LOST:
        return 0.0 if failures + 1 < LOST_LIMIT else None
    if outcome.cause is Cause.ERROR and failures < config.retry_attempts:
        # 2.0**1024 is too large for a float; the limit below is reached long before.
        factor = 2.0 ** min(failures, 1023) if config.exponential_backoff else 1.0
        return min(config.retry_delay * factor, _LONGEST_DELAY)
    return None
