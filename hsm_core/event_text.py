"""Every event as one line for people: what the logs, the progress display and the monitor show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsm_core import events as ev
from hsm_core.remote.names import task_name
from hsm_core.state import AttemptRecord, SweepState, TaskRecord
from hsm_core.task import Cause, Outcome, TaskState
from hsm_core.text import duration, plural, printable

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50}
"""Logging levels by name, as `logging.level` and `Note.level` spell them."""

_MESSAGE_LIMIT = 2000


@dataclass(frozen=True)
class Line:
    """One event told to people. `text` is escaped already."""

    level: int
    text: str
    source: str | None = None
    task: int | None = None
    output_dir: str | None = None
    """where the task's own logs are, once it ended"""

    @property
    def level_name(self) -> str:
        return logging.getLevelName(self.level)


def level_number(name: str) -> int:
    """The number of a logging level; INFO for a name that is none."""
    return LEVELS.get(name.upper(), logging.INFO)


def accepted(event: ev.AttemptFinished, state: SweepState) -> bool:
    """Whether the state, to which the event was applied already, took this outcome as its task's."""
    attempt = _attempt(event, state)
    return attempt is not None and attempt.outcome is event.outcome


def ended(event: ev.Event, state: SweepState) -> TaskRecord | None:
    """The task which this event, applied already, brought to its end; None for all other events."""
    if isinstance(event, ev.AttemptFinished) and accepted(event, state):
        task = state.tasks[event.task]
        return task if task.state.terminal else None
    return None


def line(event: ev.Event, state: SweepState) -> Line | None:
    """The event, already applied to `state`, as one line; None where it is not worth one."""
    tell = _TELL.get(event.kind)
    told: Line | None = None if tell is None else tell(event, state)
    return told


def describe_failure(outcome: Outcome) -> str:
    """Cause and run time of a failed outcome: `timeout, 3.2s`."""
    cause = outcome.cause.value if outcome.cause is not None else "error"
    return cause if outcome.duration is None else f"{cause}, {duration(outcome.duration)}"


def _attempt(event: ev.AttemptStarted | ev.AttemptFinished, state: SweepState) -> AttemptRecord | None:
    task = state.tasks.get(event.task)
    if task is None or task.attempt is None:
        return None
    return task.attempt if (task.attempt.number, task.attempt.epoch) == (event.attempt, event.epoch) else None


def _said(text: str) -> str:
    """`: text`, its first line, escaped and bounded; nothing for an empty text."""
    first = text.partition("\n")[0]
    return f": {printable(first, _MESSAGE_LIMIT)}" if first else ""


def _numbered(number: int) -> str:
    return f" (attempt {number})" if number > 1 else ""


def _sweep_started(e: ev.SweepStarted, state: SweepState) -> Line:
    return Line(logging.INFO, f"Sweep {printable(e.id)} started on {printable(e.host)} (pid {e.pid})")


def _sweep_resumed(e: ev.SweepResumed, state: SweepState) -> Line:
    where = f"{printable(e.host)} (pid {e.pid})"
    return Line(logging.INFO, f"Sweep {printable(state.id)} resumed on {where}, launcher epoch {e.epoch}")


def _config_changed(e: ev.ConfigChanged, state: SweepState) -> Line:
    if not e.keys:
        return Line(logging.INFO, "The configuration of the sweep's start is the recorded one again")
    keys = printable(", ".join(e.keys), _MESSAGE_LIMIT)
    return Line(logging.WARNING, f"The configuration changed and was accepted for what is left: {keys}")


def _code_changed(e: ev.CodeChanged, state: SweepState) -> Line | None:
    if e.count == 0:  # only its place: the snapshot of the last launcher was damaged
        return None
    first = e.snapshot == SweepState().code
    runs = "What is left runs that of the sweep's start" if first else "What is left runs the new code"
    if e.count is None:
        changed = "Whether the code changed can't be told, the snapshot of the last launcher is gone or damaged"
    else:
        names = ", ".join(e.files) + (f" and {e.count - len(e.files)} more" if e.count > len(e.files) else "")
        changed = f"The code differs from the last launcher's in {plural(e.count, 'file')}: {printable(names)}"
    commits = f" (commit {_commit(e.commit_before)} -> {_commit(e.commit)}{' with local changes' if e.dirty else ''})"
    said = f"{changed}{commits if e.commit else ''}. {runs}"
    return Line(logging.WARNING, said if first else f"{said}; --original-code takes that of the sweep's start")


def _commit(name: str | None) -> str:
    return "unknown" if name is None else printable(name[:10])


def _sweep_finished(e: ev.SweepFinished, state: SweepState) -> Line:
    counts = f"{state.counts[TaskState.COMPLETED]} completed, {state.counts[TaskState.FAILED]} failed"
    level = logging.INFO if e.status == "finished" else logging.WARNING
    return Line(level, f"Sweep {printable(state.id)} {printable(e.status)} ({counts}){_said(e.reason)}")


def _source_started(e: ev.SourceStarted, state: SweepState) -> Line:
    name = printable(e.source)
    return Line(logging.INFO, f"Source {name} started ({printable(e.type)}, {plural(e.slots, 'slot')})", e.source)


def _source_down(e: ev.SourceDown, state: SweepState) -> Line:
    return Line(logging.WARNING, f"Source {printable(e.source)} is down{_said(e.reason)}", e.source)


def _source_up(e: ev.SourceUp, state: SweepState) -> Line:
    return Line(logging.INFO, f"Source {printable(e.source)} is back", e.source)


def _source_disabled(e: ev.SourceDisabled, state: SweepState) -> Line:
    return Line(logging.ERROR, f"Source {printable(e.source)} disabled{_said(e.reason)}", e.source)


def _tasks_planned(e: ev.TasksPlanned, state: SweepState) -> Line:
    return Line(logging.INFO, f"{plural(e.count, 'task')} planned")


def _task_added(e: ev.TaskAdded, state: SweepState) -> Line:
    overrides = printable(" ".join(e.overrides), _MESSAGE_LIMIT)
    return Line(logging.DEBUG, f"Task {task_name(e.task)} added: {overrides}", task=e.task)


def _task_reopened(e: ev.TaskReopened, state: SweepState) -> Line:
    return Line(logging.INFO, f"Task {task_name(e.task)} will be run again", task=e.task)


def _attempt_submitted(e: ev.AttemptSubmitted, state: SweepState) -> Line:
    name, source = task_name(e.task), printable(e.source)
    if e.attempt > 1:
        return Line(logging.INFO, f"Task {name} reassigned to {source} (attempt {e.attempt})", e.source, e.task)
    return Line(logging.DEBUG, f"Task {name} assigned to {source}", e.source, e.task)


def _attempt_started(e: ev.AttemptStarted, state: SweepState) -> Line | None:
    if _attempt(e, state) is None:
        return None
    devices = f" with GPU {printable(', '.join(e.gpus))}" if e.gpus else ""
    text = f"Task {task_name(e.task)} started on {printable(e.source)}{_numbered(e.attempt)}{devices}"
    return Line(logging.INFO, text, e.source, e.task)


def _attempt_finished(e: ev.AttemptFinished, state: SweepState) -> Line | None:
    if not accepted(e, state):
        return None
    name, source, number = task_name(e.task), printable(e.source), _numbered(e.attempt)
    where = None if e.outcome.output_dir is None else printable(e.outcome.output_dir)
    took = "" if e.outcome.duration is None else f" ({duration(e.outcome.duration)})"
    if e.outcome.cause is Cause.CANCELLED:
        text = f"Task {name} cancelled on {source}{number}{took}{_said(e.outcome.message)}"
        return Line(logging.WARNING, text, e.source, e.task, where)
    if e.outcome.completed:
        text = f"Task {name} completed on {source}{number}{took}"
        if e.outcome.warning:
            return Line(logging.WARNING, f"{text}, with a warning{_said(e.outcome.warning)}", e.source, e.task, where)
        return Line(logging.INFO, text, e.source, e.task, where)
    text = f"Task {name} failed on {source}{number} ({describe_failure(e.outcome)}){_said(e.outcome.message)}"
    if e.retry_in is None:
        return Line(logging.ERROR, text, e.source, e.task, where)
    when = f"in {duration(e.retry_in)}" if e.retry_in > 0 else "at once"
    return Line(logging.WARNING, f"{text}; next attempt {when}", e.source, e.task, where)


def _results_collected(e: ev.ResultsCollected, state: SweepState) -> Line:
    text = f"Results of {plural(len(e.attempts), 'task')} collected from {printable(e.source)}"
    return Line(logging.INFO, text, e.source)


def _result_stale(e: ev.ResultStale, state: SweepState) -> Line:
    text = f"A late result of attempt {e.attempt} of {task_name(e.task)} from {printable(e.source)} was ignored"
    return Line(logging.WARNING, text, e.source, e.task)


def _strategy_failed(e: ev.StrategyFailed, state: SweepState) -> Line:
    text = f"Strategy {printable(e.strategy)} failed, round_robin goes on{_said(e.reason)}"
    return Line(logging.WARNING, text)


def _command_done(e: ev.CommandDone, state: SweepState) -> Line:
    did = "done" if e.ok else "refused"
    level = logging.INFO if e.ok else logging.WARNING
    return Line(level, f"Command {printable(e.command)} {did}{_said(e.message)}")


def _note(e: ev.Note, state: SweepState) -> Line:
    return Line(level_number(e.level), printable(e.message, _MESSAGE_LIMIT), e.source, e.task)


_TELL: dict[str, Callable[[Any, SweepState], Line | None]] = {
    ev.SweepStarted.kind: _sweep_started,
    ev.SweepResumed.kind: _sweep_resumed,
    ev.ConfigChanged.kind: _config_changed,
    ev.CodeChanged.kind: _code_changed,
    ev.SweepFinished.kind: _sweep_finished,
    ev.SourceStarted.kind: _source_started,
    ev.SourceDown.kind: _source_down,
    ev.SourceUp.kind: _source_up,
    ev.SourceDisabled.kind: _source_disabled,
    ev.TasksPlanned.kind: _tasks_planned,
    ev.TaskAdded.kind: _task_added,
    ev.TaskReopened.kind: _task_reopened,
    ev.AttemptSubmitted.kind: _attempt_submitted,
    ev.AttemptStarted.kind: _attempt_started,
    ev.AttemptFinished.kind: _attempt_finished,
    ev.ResultStale.kind: _result_stale,
    ev.ResultsCollected.kind: _results_collected,
    ev.StrategyFailed.kind: _strategy_failed,
    ev.CommandDone.kind: _command_done,
    ev.Note.kind: _note,
}
