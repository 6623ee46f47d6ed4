"""Whether, when and with how much memory a failed attempt is followed by another."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hsm_core.config import HsmConfig, OomRetry
from hsm_core.config.rules import growth_factor
from hsm_core.config.sizes import mebibytes
from hsm_core.state import AttemptRecord, TaskRecord
from hsm_core.task import Cause, Outcome

_LONGEST_DELAY = 3600.0


def retry_delay(config: HsmConfig, outcome: Outcome, earlier: Mapping[str, int], memory: float | None) -> float | None:
    """Seconds until the next attempt, None if there is to be none.

    `earlier` counts the failed attempts of the task by cause, this one not included; `memory` is
    what this one was allowed, in MiB, None without a limit of its own. Attempts that were preempted, or ended
    by the sweep's own stop, are always made up for. Those that ran out of memory are retried
    with more of it where the configuration says how, and not once they had all they may get.
    """
    if outcome.completed:
        return None
    failures = earlier.get(outcome.cause.value, 0) if outcome.cause is not None else 0
    if outcome.cause in (Cause.PREEMPTED, Cause.CANCELLED):
        return 0.0
    if outcome.cause is Cause.LOST:
        return 0.0 if failures + 1 < config.retry.lost else None
    if failures >= _times(config, outcome.cause):
        return None
    had = shortage(memory, outcome)
    if had is not None and grown(config, had) <= had and _policy(config).mem:
        return None
    # 2.0**1024 is too large for a float; the limit below is reached long before.
    factor = 2.0 ** min(failures, 1023) if config.compute.exponential_backoff else 1.0
    return min(config.compute.retry_delay * factor, _LONGEST_DELAY)


def shortage(memory: float | None, outcome: Outcome) -> float | None:
    """MiB that an attempt ran out of: its own limit, `memory`, or what its scheduler gave it, whichever is less.

    None: it did not run out of memory, or had no limit that is known.
    """
    limits = [limit for limit in (memory, outcome.given) if limit is not None]
    return min(limits) if limits and outcome.cause is Cause.OOM else None


def next_memory(config: HsmConfig, last: AttemptRecord | None) -> tuple[float | None, float | None]:
    """MiB that the next attempt of a task may use, None for no limit; and MiB to ask a scheduler for at least.

    `last`: its last attempt, None where there was none. What that had too little of there is more of now.
    """
    limit, needs = (None, None) if last is None else (last.memory, last.needs)
    if last is not None and last.outcome is not None and (had := shortage(limit, last.outcome)) is not None:
        needs = grown(config, had)
        limit = needs if limit == had else limit
    if limit is None and config.memory_per_task is not None:
        limit = mebibytes(config.memory_per_task)
    return limit, needs


def grown(config: HsmConfig, memory: float) -> float:
    """MiB that follow this many after an attempt ran out of memory; never less."""
    policy = _policy(config)
    more = memory if policy.mem is None else memory * growth_factor(policy.mem)
    return more if policy.max is None else max(memory, min(more, mebibytes(policy.max)))


def last_words(config: HsmConfig, outcome: Outcome, task: TaskRecord) -> str:
    """What is to be put behind the message of the last attempt of a task; `task` is as it was before its end."""
    if outcome.cause is Cause.OOM:
        return shortage_advice(config, outcome, None if task.attempt is None else task.attempt.memory)
    if outcome.cause is Cause.LOST and task.attempt is not None:
        where = outcome.host or task.attempt.host or "unknown host"
        hosts = ", ".join([*task.lost_on, f"{where} ({task.attempt.source})"])
        return f"; the task took {config.retry.lost} workers down with it, on {hosts}"
    return ""


def shortage_advice(config: HsmConfig, outcome: Outcome, memory: float | None) -> str:
    """What to do about a task that ran out of memory for good, to be put behind its message.

    `memory`: MiB that its last attempt was allowed.
    """
    had = shortage(memory, outcome)
    if had is None:
        return "; memory_per_task and retry.oom would give each attempt its own limit, and the next one more"
    if _policy(config).mem is not None:
        return "; it had all that retry.oom allows"
    where = "with memory_per_task"
    if had != memory:
        more = 2 * math.ceil(max(had, outcome.peak_memory or 0.0))
        where = f"with hsm.resources.mem={_size(more)}, with default_resources of its source"
    return f"; give it more {where}, or with retry.oom={{times: 2, mem: x2}} where it runs out"


def _size(memory: int) -> str:
    return f"{memory // 1024}GB" if memory % 1024 == 0 else f"{memory}MB"


def _policy(config: HsmConfig) -> OomRetry:
    oom = config.retry.oom
    return oom if isinstance(oom, OomRetry) else OomRetry(times=oom)


def _times(config: HsmConfig, cause: Cause | None) -> int:
    """How often a task is tried again after failures with this cause."""
    if cause is Cause.ERROR:
        return config.compute.retry_attempts if config.retry.error is None else config.retry.error
    if cause is Cause.TIMEOUT:
        return config.retry.timeout
    return _policy(config).times if cause is Cause.OOM else 0
