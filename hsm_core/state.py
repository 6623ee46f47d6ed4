"""The state of a sweep: what its events add up to.

`apply` is the only code that changes a `SweepState`. It is deterministic and does no I/O, so a
replayed journal equals the state the launcher had. It changes the state in place and returns
it: a copy per event would make a sweep of N tasks cost N squared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from hsm_core import events as ev
from hsm_core.task import Outcome, TaskState

# In a module's own names: each of them is looked up millions of times in a long replay.
PENDING, SUBMITTED, RUNNING, COMPLETED, FAILED = TaskState
_ADDED, _SUBMITTED = ev.TaskAdded.kind, ev.AttemptSubmitted.kind
_STARTED, _FINISHED = ev.AttemptStarted.kind, ev.AttemptFinished.kind


class AttemptRecord(msgspec.Struct, gc=False):
    """An attempt as the journal tells it. Times are the journal's, seconds since 1970."""

    number: int
    epoch: int
    source: str
    submitted_at: float
    memory: float | None = None
    """MiB it may use; None: no limit"""
    needs: float | None = None
    """MiB that a scheduler was to be asked for at least"""
    started_at: float | None = None
    ended_at: float | None = None
    host: str | None = None
    pid: int | None = None
    output_dir: str | None = None
    outcome: Outcome | None = None
    collected: bool = False
    """whether its output was brought home, from a source that does not share our files"""


class TaskRecord(msgspec.Struct, gc=False):
    """A task and its latest attempt."""

    index: int
    key: str
    overrides: tuple[str, ...]
    state: TaskState = PENDING
    attempt: AttemptRecord | None = None
    """the current attempt, or the last one when the task is pending or ended"""
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    """failed attempts by cause"""
    lost_on: tuple[str, ...] = ()
    """`host (source)` of every lost attempt, in order"""

    @property
    def outcome(self) -> Outcome | None:
        """How the task ended; None while it has not."""
        return self.attempt.outcome if self.attempt is not None and self.state.terminal else None


for _record in (AttemptRecord, TaskRecord):
    # msgspec's own setter only tells the garbage collector, which these do without (gc=False), and the interpreter has
    # a quick way for object's alone: a task's fields are set eleven times in a replay. In the class's body it would
    # not do, msgspec puts its own over it.
    _record.__setattr__, _record.__delattr__ = object.__setattr__, object.__delattr__  # type: ignore[method-assign]


@dataclass(slots=True)
class SourceRecord:
    """A source and what it did in this sweep."""

    name: str
    type: str
    slots: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    active: int = 0
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    busy_seconds: float = 0.0
    """sum of the durations of ended attempts"""
    down: str | None = None
    """why it can't run tasks now"""
    disabled: str | None = None
    """why it was taken out"""
    pending: Mapping[str, int] = field(default_factory=dict)
    """jobs that wait in its scheduler, by the reason"""
    running: Mapping[str, int] = field(default_factory=dict)
    """jobs that its scheduler has started, by the node"""


@dataclass(frozen=True)
class CommandLine:
    """What started a launcher, and how many tasks its sweeper has announced."""

    argv: tuple[str, ...] = ()
    cwd: str = ""
    planned: int = 0


@dataclass
class SweepState:
    id: str = ""
    started: ev.SweepStarted | None = None
    started_at: float | None = None
    ended_at: float | None = None
    status: str = "empty"
    """empty, running, finished, interrupted or stopped"""
    reason: str = ""
    exit_code: int | None = None
    """the launcher's, once it is done with the sweep; None before, and in journals of earlier versions"""
    epoch: int = 0
    planned: int = 0
    """tasks the sweepers announced"""
    tasks: dict[int, TaskRecord] = field(default_factory=dict)
    sources: dict[str, SourceRecord] = field(default_factory=dict)
    counts: dict[TaskState, int] = field(default_factory=lambda: dict.fromkeys(TaskState, 0))
    """tasks in each state"""
    stale: int = 0
    last_event_at: float | None = None
    config: str = "payload"
    """folder below `.hsm` of the payload that holds the recorded configuration"""
    config_hash: str | None = None
    config_epoch: int = 0
    """the launcher since which it is the recorded one"""
    code: str = "snapshot"
    """folder below `.hsm` of the snapshot that the last launcher's tasks run"""
    command: CommandLine = CommandLine()
    """of the launcher that planned most tasks, the latest of these"""
    current: CommandLine = CommandLine()
    """of the latest launcher"""

    @property
    def total(self) -> int:
        """Tasks known or announced, whichever is more."""
        return max(self.planned, len(self.tasks))

    @property
    def ended(self) -> int:
        return self.counts[TaskState.COMPLETED] + self.counts[TaskState.FAILED]

    @property
    def active(self) -> int:
        return self.counts[TaskState.SUBMITTED] + self.counts[TaskState.RUNNING]


def is_current(state: SweepState, event: ev.AttemptStarted | ev.AttemptFinished) -> bool:
    """Whether the event speaks of the task's current attempt, and the attempt still runs."""
    task = state.tasks.get(event.task)
    if task is None or task.attempt is None or not task.state.active:
        return False
    attempt = task.attempt
    return (attempt.number, attempt.epoch, attempt.source) == (event.attempt, event.epoch, event.source)


def apply(state: SweepState, event: ev.Event, at: float) -> SweepState:
    """Fold one event, written at time `at` (seconds since 1970), into the state.

    Events of attempts that are not current change nothing: the laws of DESIGN section 5 hold
    for every sequence of events, not only for those a correct engine writes.
    """
    apply_all(state, (event,), (at,))
    return state


def apply_all(state: SweepState, events: Sequence[Any], times: Sequence[float]) -> None:
    """Fold events, each written at the time beside it: `apply` for all of them.

    Tasks and their attempts are nearly all of a long journal. What is done for them stands here in one piece, and is
    counted at the end: calls and dict entries would cost as much as the work.
    """
    tasks, sources, counts = state.tasks, state.sources, state.counts
    added = submitted = started = ended = completed = 0
    for e, at in zip(events, times, strict=True):
        kind = e.kind
        # Both look for the current attempt by themselves: where one place reads the fields of two kinds of events, the
        # interpreter loses its quick way to them.
        if kind == _STARTED:
            task = tasks.get(e.task)
            if task is None or (task.state is not RUNNING and task.state is not SUBMITTED):
                continue
            attempt = task.attempt
            if attempt is None or attempt.number != e.attempt or attempt.epoch != e.epoch or attempt.source != e.source:
                continue
            attempt.host, attempt.pid, attempt.output_dir = e.host, e.pid, e.output_dir
            if task.state is SUBMITTED:
                attempt.started_at = at
                task.state = RUNNING
                started += 1
        elif kind == _FINISHED:
            task = tasks.get(e.task)
            if task is None or (task.state is not RUNNING and task.state is not SUBMITTED):
                continue
            attempt = task.attempt
            if attempt is None or attempt.number != e.attempt or attempt.epoch != e.epoch or attempt.source != e.source:
                continue
            outcome = e.outcome
            attempt.outcome, attempt.ended_at = outcome, at
            attempt.output_dir = outcome.output_dir or attempt.output_dir
            source = sources[attempt.source]
            source.active -= 1
            source.busy_seconds += outcome.duration or 0.0
            if task.state is SUBMITTED:
                started += 1  # nobody heard of its start
            ended += 1
            if outcome.status is COMPLETED:
                source.completed += 1
                task.state = COMPLETED
                completed += 1
            else:
                source.failed += 1
                task.state = _failed(state, task, attempt, e)
                counts[task.state] += 1
        elif kind == _ADDED:
            if e.task not in tasks:
                tasks[e.task] = TaskRecord(e.task, e.key, e.overrides)
                added += 1
        elif kind == _SUBMITTED:
            task = tasks.get(e.task)
            if task is None or task.state is not PENDING:
                continue
            last = task.attempt
            if last is not None and (e.attempt, e.epoch) <= (last.number, last.epoch):
                continue
            source = sources.get(e.source) or _source(state, e.source)
            source.active += 1
            source.submitted += 1
            task.attempt = AttemptRecord(e.attempt, e.epoch, source.name, at, e.memory, e.needs)
            task.state = SUBMITTED
            submitted += 1
        elif kind in _FOLDS:
            _FOLDS[kind](state, e, at)
    counts[PENDING] += added - submitted
    counts[SUBMITTED] += submitted - started
    counts[RUNNING] += started - ended
    counts[COMPLETED] += completed
    if times:
        state.last_event_at = times[-1]


def _failed(state: SweepState, task: TaskRecord, attempt: AttemptRecord, e: ev.AttemptFinished) -> TaskState:
    """Book a failed attempt; returns what becomes of its task."""
    outcome = e.outcome
    cause = outcome.cause.value if outcome.cause is not None else "error"
    if cause == "lost" and e.epoch < state.epoch:
        # It went down with its launcher; that is no mark against the task.
        cause = "cancelled"
    task.failures[cause] = task.failures.get(cause, 0) + 1
    if cause == "lost":
        task.lost_on += (f"{outcome.host or attempt.host or 'unknown host'} ({attempt.source})",)
    return FAILED if e.retry_in is None else PENDING


def _source(state: SweepState, name: str) -> SourceRecord:
    source = state.sources.get(name)
    if source is None:
        source = state.sources[name] = SourceRecord(name, "unknown", 0)
    return source


def _sweep_started(state: SweepState, e: ev.SweepStarted, at: float) -> None:
    state.id, state.started, state.started_at = e.id, e, at
    state.status, state.epoch = "running", e.epoch
    state.config_hash, state.config_epoch = e.config_hash, e.epoch
    state.command = state.current = CommandLine(e.argv, e.cwd)


def _sweep_resumed(state: SweepState, e: ev.SweepResumed, at: float) -> None:
    state.status, state.reason, state.exit_code, state.ended_at = "running", "", None, None
    state.epoch = max(state.epoch, e.epoch)
    state.planned = 0
    state.current = CommandLine(e.argv, e.cwd or state.current.cwd)
    for source in state.sources.values():
        source.down = source.disabled = None


def _sweep_finished(state: SweepState, e: ev.SweepFinished, at: float) -> None:
    state.status, state.reason, state.exit_code, state.ended_at = e.status, e.reason, e.exit_code, at


def _config_changed(state: SweepState, e: ev.ConfigChanged, at: float) -> None:
    state.config, state.config_hash, state.config_epoch = e.payload, e.config_hash, state.epoch


def _code_changed(state: SweepState, e: ev.CodeChanged, at: float) -> None:
    state.code = e.snapshot


def _source_started(state: SweepState, e: ev.SourceStarted, at: float) -> None:
    source = _source(state, e.source)
    source.type, source.slots, source.facts = e.type, e.slots, e.facts
    source.down = source.disabled = None
    source.pending = source.running = {}


def _source_down(state: SweepState, e: ev.SourceDown, at: float) -> None:
    _source(state, e.source).down = e.reason


def _source_up(state: SweepState, e: ev.SourceUp, at: float) -> None:
    _source(state, e.source).down = None


def _source_queue(state: SweepState, e: ev.SourceQueue, at: float) -> None:
    source = _source(state, e.source)
    source.pending, source.running = e.pending, e.running


def _source_disabled(state: SweepState, e: ev.SourceDisabled, at: float) -> None:
    _source(state, e.source).disabled = e.reason


def _tasks_planned(state: SweepState, e: ev.TasksPlanned, at: float) -> None:
    state.planned += e.count
    state.current = replace(state.current, planned=state.planned)
    if state.planned >= state.command.planned and state.current.argv:
        state.command = state.current


def _task_reopened(state: SweepState, e: ev.TaskReopened, at: float) -> None:
    task = state.tasks.get(e.task)
    if task is not None and task.state is FAILED:
        task.state = PENDING
        state.counts[FAILED] -= 1
        state.counts[PENDING] += 1
        task.failures, task.lost_on = {}, ()


def _results_collected(state: SweepState, e: ev.ResultsCollected, at: float) -> None:
    for index, number, epoch in e.attempts:
        task = state.tasks.get(index)
        attempt = None if task is None else task.attempt
        if attempt is not None and (attempt.number, attempt.epoch, attempt.source) == (number, epoch, e.source):
            attempt.collected = True


def _result_stale(state: SweepState, e: ev.ResultStale, at: float) -> None:
    state.stale += 1


_FOLDS: dict[str, Any] = {
    ev.SweepStarted.kind: _sweep_started,
    ev.SweepResumed.kind: _sweep_resumed,
    ev.ConfigChanged.kind: _config_changed,
    ev.CodeChanged.kind: _code_changed,
    ev.SweepFinished.kind: _sweep_finished,
    ev.SourceStarted.kind: _source_started,
    ev.SourceDown.kind: _source_down,
    ev.SourceUp.kind: _source_up,
    ev.SourceQueue.kind: _source_queue,
    ev.SourceDisabled.kind: _source_disabled,
    ev.TasksPlanned.kind: _tasks_planned,
    ev.TaskReopened.kind: _task_reopened,
    ev.ResultStale.kind: _result_stale,
    ev.ResultsCollected.kind: _results_collected,
}
