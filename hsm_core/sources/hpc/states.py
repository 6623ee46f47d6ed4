"""How an element of a job stands, whichever scheduler says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Phase(Enum):
    PENDING = "pending"
    HELD = "held"
    """pending until somebody releases it"""
    RUNNING = "running"
    """has its node, until the last of it has gone from there"""
    COMPLETED = "completed"
    """ended with exit code 0; whether its task did, its result record says"""
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out of memory"
    NODE_FAIL = "node failure"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    """this start of it has ended, another one follows"""
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """nobody who was asked knows; it decides nothing"""

    @property
    def lives(self) -> bool:
        return self in _LIVING

    @property
    def ended(self) -> bool:
        return self not in _LIVING and self is not Phase.UNKNOWN


_LIVING = frozenset({Phase.PENDING, Phase.HELD, Phase.RUNNING, Phase.REQUEUED})


@dataclass(frozen=True)
class JobState:
    """What a scheduler says of one element of a job."""

    element: str
    """`123_4`: array and index; `123`: a job of its own"""
    phase: Phase
    reason: str = ""
    """why it pends or how it ended, in the scheduler's words; empty: it says none"""
    node: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    """how often the scheduler has started it again"""
    peak: float | None = None
    """MiB, the most that one of its processes was seen to have"""


def settled(
    elements: Iterable[str], queue: Mapping[str, JobState], accounting: Mapping[str, JobState]
) -> dict[str, JobState]:
    """The state of each element by what the queue and the accounting say of it.

    The queue comes first: the accounting lags behind, keeps the last end of what was requeued, and has what a crashed
    controller forgot as running for ever. Only an end that it tells of counts where the queue knows nothing; and it
    alone may know that memory ran out, and the peak. What neither knows is UNKNOWN.
    """
    return {e: _one(e, queue.get(e), accounting.get(e)) for e in elements}


def _one(element: str, queued: JobState | None, accounted: JobState | None) -> JobState:
    ended = accounted is not None and accounted.phase.ended
    if queued is None:
        if accounted is not None and ended:
            return accounted
        told = "" if accounted is None else f"accounting has it as {accounted.phase.value}, the queue has not"
        return JobState(element, Phase.UNKNOWN, told)
    if queued.phase.ended and accounted is not None and ended:
        oom = accounted.phase is Phase.OUT_OF_MEMORY
        return replace(queued, phase=accounted.phase if oom else queued.phase, peak=accounted.peak)
    return queued
