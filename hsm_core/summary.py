"""A sweep in figures: what the progress display, the monitor and `hsm sweeps` show of a state.

Building one costs O(sources), never O(tasks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsm_core.owner import OwnerInfo
from hsm_core.state import SourceRecord, SweepState
from hsm_core.task import TaskState
from hsm_core.text import duration, plural, printable

LAUNCHER_GONE = "launcher gone"


@dataclass(frozen=True)
class SourceFigures:
    """One source of a sweep."""

    name: str
    type: str
    slots: int
    active: int
    completed: int
    failed: int
    health: str
    """healthy, unknown (not reachable) or disabled"""
    reason: str
    """why it is not healthy; empty when it is"""
    pending_jobs: Mapping[str, int]
    """jobs that wait in its scheduler, by the reason, as that last said; empty where there is none"""
    running_jobs: Mapping[str, int]
    """jobs that run, by the node"""


@dataclass(frozen=True)
class Figures:
    """A sweep in figures. Counts are of tasks; `completed + failed + active + pending == total`."""

    id: str
    status: str
    """as `condition` says"""
    reason: str
    completed: int
    failed: int
    active: int
    pending: int
    total: int
    success_rate: float | None
    """completed tasks as a fraction of the ended ones; None before the first ended"""
    eta: float | None
    """seconds until all tasks have ended, as far as the durations so far tell; None: can't be told"""
    sources: tuple[SourceFigures, ...]

    @property
    def ended(self) -> int:
        return self.completed + self.failed

    @property
    def fraction(self) -> float:
        """Ended tasks as a fraction of all."""
        return self.ended / self.total if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def figures(state: SweepState, owner: OwnerInfo | None = None) -> Figures:
    """The figures of a state; `owner` is who holds the sweep directory, where that is known."""
    completed, failed = state.counts[TaskState.COMPLETED], state.counts[TaskState.FAILED]
    ended, status = completed + failed, condition(state, owner)
    return Figures(
        id=state.id,
        status=status,
        reason=state.reason,
        completed=completed,
        failed=failed,
        active=state.active,
        pending=state.total - ended - state.active,
        total=state.total,
        success_rate=completed / ended if ended else None,
        eta=remaining_seconds(state) if status == "running" else None,
        sources=tuple(_source_figures(source, live=status == "running") for source in _sources(state)),
    )


def condition(state: SweepState, owner: OwnerInfo | None) -> str:
    """How the sweep stands: empty, running, finished, interrupted, stopped, or `launcher gone`.

    The last is a sweep whose journal has no end, though its owner gave it back or its process is gone.
    """
    if state.status in ("empty", "running") and owner is not None and (owner.released or owner.alive is False):
        return LAUNCHER_GONE
    return state.status


def exit_code(state: SweepState) -> int:
    """The exit code with which the launcher of an ended sweep left it."""
    if state.exit_code is not None:
        return state.exit_code
    return 0 if state.status == "finished" and not state.counts[TaskState.FAILED] else 1


def status_words(now: Figures) -> str:
    """The status for people, with its reason, or the way on where the launcher is gone."""
    if now.status == LAUNCHER_GONE:
        return f"Launcher gone; `hsm complete {printable(now.id)}` goes on"
    words = "Starting" if now.status == "empty" else printable(now.status).capitalize()
    return f"{words}: {printable(now.reason, 200)}" if now.reason else words


def count_words(now: Figures) -> str:
    """The counts for people: `48/100 tasks (48%), 46 completed, 2 failed, 3 active, 49 pending`."""
    counts = f"{now.completed} completed, {now.failed} failed, {now.active} active, {now.pending} pending"
    return f"{now.ended}/{plural(now.total, 'task')} ({now.fraction:.0%}), {counts}"


def queue_words(source: SourceFigures) -> str:
    """How its jobs stand, for people: `3 jobs pending (waits for free nodes), 2 running on n1`; empty without jobs."""
    told = []
    waiting, running = source.pending_jobs, source.running_jobs
    if waiting:
        reasons = [f"{count}: {words}" for words, count in waiting.items()] if len(waiting) > 1 else list(waiting)
        told.append(f"{plural(sum(waiting.values()), 'job')} pending ({printable('; '.join(reasons), 300)})")
    if running:
        nodes = [f"{node} ({count})" for node, count in running.items()] if len(running) > 1 else list(running)
        jobs = "" if waiting else " job" if sum(running.values()) == 1 else " jobs"
        told.append(f"{sum(running.values())}{jobs} running on {printable(', '.join(nodes), 300)}")
    return ", ".join(told)


def eta_words(now: Figures) -> str:
    """`~2h 15m remaining`; empty when that can't be told or nothing is left."""
    return f"~{duration(now.eta)} remaining" if now.eta else ""


def remaining_seconds(state: SweepState) -> float | None:
    """Seconds until all tasks have ended, from the mean duration so far and the usable slots.

    None when nothing has ended yet, or no source can take a task.
    """
    sources = _sources(state)
    attempts = sum(source.completed + source.failed for source in sources)
    slots = sum(source.slots for source in sources if source.down is None and source.disabled is None)
    left = state.total - state.ended
    if not attempts or not slots:
        return None
    mean = sum(source.busy_seconds for source in sources) / attempts
    return mean * left / min(slots, left) if left else 0.0


def _sources(state: SweepState) -> list[SourceRecord]:
    # A list made at once: the display asks from its own thread, while the engine may get to know another source.
    return list(state.sources.values())


def _source_figures(source: SourceRecord, *, live: bool) -> SourceFigures:
    if source.disabled is not None:
        health, reason = "disabled", source.disabled
    elif source.down is not None:
        health, reason = "unknown", source.down
    else:
        health, reason = "healthy", ""
    return SourceFigures(
        name=source.name,
        type=source.type,
        slots=source.slots,
        active=source.active,
        completed=source.completed,
        failed=source.failed,
        health=health,
        reason=reason,
        pending_jobs=source.pending if live else {},
        running_jobs=source.running if live else {},
    )
