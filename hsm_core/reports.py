"""The reports of a sweep: `reports/performance_analysis.yaml` and `reports/source_utilization.html`.

Both are computed from the journal alone, so they can be written again at any time.
"""

from __future__ import annotations

import heapq
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from hsm_core import events as ev
from hsm_core.event_text import accepted
from hsm_core.journal import entries
from hsm_core.remote.names import task_name
from hsm_core.report_page import Timeline, page
from hsm_core.state import SourceRecord, SweepState, TaskRecord, apply
from hsm_core.task import TaskState
from hsm_core.text import printable
from hsm_core.whole_file import write_whole

_SLOWEST = 10


@dataclass
class _SourceHistory:
    """What the state does not keep of a source: every attempt, not only each task's last."""

    active: list[tuple[float, float]] = field(default_factory=list)
    """when attempts held a slot, from being submitted to the end; seconds since 1970"""
    durations: list[float] = field(default_factory=list)
    """of completed attempts, seconds"""
    failures: Counter[str] = field(default_factory=Counter)
    """failed attempts by cause"""


@dataclass
class _History:
    """A journal, folded."""

    state: SweepState = field(default_factory=SweepState)
    sources: dict[str, _SourceHistory] = field(default_factory=dict)
    runs: list[list[float]] = field(default_factory=list)
    """first and last moment of each launcher's time with the sweep"""

    @property
    def elapsed(self) -> float:
        """Seconds in which a launcher was at work."""
        return sum(end - start for start, end in self.runs)


def write_reports(directory: Path) -> None:
    """Write both reports from the journal of the sweep in `directory`.

    Raises JournalError when the journal can't be read, OSError when a report can't be written.
    """
    history = _read(directory / ".hsm" / "journal.jsonl")
    analysis = yaml.safe_dump(_analysis(history), sort_keys=False, allow_unicode=True)
    write_whole(directory / "reports" / "performance_analysis.yaml", analysis)
    write_whole(directory / "reports" / "source_utilization.html", _page(history))


def _read(journal: Path) -> _History:
    history = _History()
    latest = set_back = 0.0
    for entry in entries(journal):
        # A clock that was set back goes on from where it stood: no time runs backwards, and none is missing.
        set_back += max(0.0, latest - entry.at)
        latest, at = entry.at, entry.at + set_back
        if isinstance(entry.event, (ev.SweepStarted, ev.SweepResumed)):
            history.runs.append([at, at])
        elif history.runs:
            history.runs[-1][1] = at
        if entry.event is None:
            continue
        apply(history.state, entry.event, at)
        if isinstance(entry.event, ev.AttemptFinished) and accepted(entry.event, history.state):
            _note_attempt(history, history.state.tasks[entry.event.task])
    for task in history.state.tasks.values():
        if task.state.active:
            _note_active(history, task, history.runs[-1][1])
    return history


def _note_attempt(history: _History, task: TaskRecord) -> None:
    assert task.attempt is not None and task.attempt.outcome is not None and task.attempt.ended_at is not None
    source, outcome = _note_active(history, task, task.attempt.ended_at), task.attempt.outcome
    if not outcome.completed:
        source.failures["error" if outcome.cause is None else outcome.cause.value] += 1
    elif outcome.duration is not None:
        source.durations.append(outcome.duration)


def _note_active(history: _History, task: TaskRecord, end: float) -> _SourceHistory:
    assert task.attempt is not None
    source = history.sources.setdefault(task.attempt.source, _SourceHistory())
    source.active.append((task.attempt.submitted_at, end))
    return source


def _analysis(history: _History) -> dict[str, Any]:
    state = history.state
    counts = state.counts
    failed = [task for task in state.tasks.values() if task.state is TaskState.FAILED]
    return {
        "sweep": state.id,
        "status": state.status,
        "started": None if state.started_at is None else _utc(state.started_at),
        "elapsed_seconds": round(history.elapsed, 3),
        "tasks": {
            "total": state.total,
            "completed": counts[TaskState.COMPLETED],
            "failed": counts[TaskState.FAILED],
            "pending": state.total - state.ended,
        },
        "attempts": sum(source.submitted for source in state.sources.values()),
        "busy_seconds": round(sum(source.busy_seconds for source in state.sources.values()), 3),
        "sources": {name: _source(source, history) for name, source in state.sources.items()},
        "slowest_tasks": [
            {
                "task": task_name(task.index),
                "source": task.attempt.source,
                "duration_seconds": _duration(task),
                "overrides": [printable(override) for override in task.overrides],
            }
            for task in heapq.nlargest(_SLOWEST, state.tasks.values(), key=_duration)
            if task.attempt is not None and task.outcome is not None
        ],
        "failures_by_cause": dict(Counter(_cause(task) for task in failed)),
    }


def _source(source: SourceRecord, history: _History) -> dict[str, Any]:
    own = history.sources.get(source.name, _SourceHistory())
    room = source.slots * history.elapsed
    return {
        "type": source.type,
        "slots": source.slots,
        "attempts": source.submitted,
        "completed": source.completed,
        "failed": source.failed,
        "failures_by_cause": dict(own.failures),
        "duration_seconds": _spread(own.durations),
        "busy_seconds": round(source.busy_seconds, 3),
        "utilisation": round(source.busy_seconds / room, 4) if room else 0.0,
    }


def _spread(durations: Sequence[float]) -> dict[str, float] | None:
    """Mean, median and longest; None where no task completed."""
    if not durations:
        return None
    figures = {"mean": statistics.fmean(durations), "median": statistics.median(durations), "max": max(durations)}
    return {name: round(value, 3) for name, value in figures.items()}


def _page(history: _History) -> str:
    state = history.state
    start = min((run[0] for run in history.runs), default=0.0)
    end = max((run[1] for run in history.runs), default=0.0)
    timelines = [
        Timeline(name, source.type, source.slots, tuple(history.sources.get(name, _SourceHistory()).active))
        for name, source in state.sources.items()
    ]
    return page(state.id, start, end, timelines)


def _duration(task: TaskRecord) -> float:
    return task.outcome.duration or 0.0 if task.outcome is not None else 0.0


def _cause(task: TaskRecord) -> str:
    return task.outcome.cause.value if task.outcome is not None and task.outcome.cause is not None else "error"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
