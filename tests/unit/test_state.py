"""The fold of events into a sweep's state: its laws, for any sequence of events, and its life in the usual order."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core import events as ev
from hsm_core.journal import Journal, replay
from hsm_core.journal.lines import Unknown, encode, line_of
from hsm_core.state import SweepState, apply, is_current
from hsm_core.task import Cause, Outcome, TaskState

STARTED = ev.SweepStarted(
    id="sweep_20260115_143022",
    format=ev.FORMAT,
    hsm="0.1.0",
    python="3.11.7",
    hydra="1.3.2",
    cwd="/home/user/project",
    argv=("python", "train.py", "-m"),
    app="train.py",
    host="laptop",
    pid=4711,
)
DONE = Outcome(TaskState.COMPLETED, duration=1.5, return_value=0.25)
BROKEN = Outcome.failed(Cause.ERROR, "ValueError: no", duration=0.5)

# A small world, so that random events often meet the same task, attempt and source.
tasks = st.integers(0, 3)
numbers = st.integers(1, 3)
epochs = st.integers(1, 2)
sources = st.sampled_from(["local", "server1"])
words = st.text(max_size=8)
seconds = st.floats(0, 1e6)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
outcomes = st.builds(
    Outcome,
    status=st.sampled_from([TaskState.COMPLETED, TaskState.FAILED]),
    cause=st.none() | st.sampled_from(Cause),
    message=words,
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    duration=st.none() | seconds,
    host=st.none() | st.just("node7"),
    output_dir=st.none() | st.just("/out/task"),
    return_value=plain_json,
)
attempt_events: st.SearchStrategy[ev.AttemptSubmitted | ev.AttemptStarted | ev.AttemptFinished] = st.one_of(
    st.builds(ev.AttemptSubmitted, task=tasks, attempt=numbers, epoch=epochs, source=sources),
    st.builds(ev.AttemptStarted, task=tasks, attempt=numbers, epoch=epochs, source=sources, host=st.none() | words),
    st.builds(
        ev.AttemptFinished,
        task=tasks,
        attempt=numbers,
        epoch=epochs,
        source=sources,
        outcome=outcomes,
        retry_in=st.none() | seconds,
    ),
)
other_events: st.SearchStrategy[ev.Event] = st.one_of(
    st.builds(ev.TaskAdded, task=tasks, key=st.just("k"), overrides=st.lists(words, max_size=2).map(tuple)),
    st.builds(ev.TaskReopened, task=tasks),
    st.builds(
        ev.ResultsCollected, source=sources, attempts=st.lists(st.tuples(tasks, numbers, epochs), max_size=3).map(tuple)
    ),
    st.builds(ev.ResultStale, task=tasks, attempt=numbers, epoch=epochs, source=sources, outcome=outcomes),
    st.builds(ev.SourceStarted, source=sources, type=words, slots=numbers, facts=st.dictionaries(words, plain_json)),
    st.builds(ev.SourceDown, source=sources, reason=words),
    st.builds(ev.SourceUp, source=sources),
    st.builds(ev.SourceDisabled, source=sources, reason=words),
    st.builds(ev.TasksPlanned, count=numbers),
    st.builds(ev.SweepResumed, epoch=epochs, host=words, pid=numbers, argv=st.lists(words).map(tuple)),
    st.builds(ev.ConfigChanged, payload=words, config_hash=st.none() | words, keys=st.lists(words).map(tuple)),
    st.builds(ev.CodeChanged, snapshot=words, files=st.lists(words).map(tuple), count=st.none() | numbers),
    st.builds(ev.StrategyFailed, strategy=words, reason=words),
    st.builds(ev.CommandDone, id=words, command=words, ok=st.booleans(), message=words),
    st.builds(ev.Note, level=words, message=words, source=st.none() | sources, task=st.none() | tasks),
    st.builds(ev.SweepFinished, status=words, reason=words),
)


@st.composite
def histories(draw: st.DrawFn) -> list[ev.Event]:
    """Any events in any order, but often such as follow on what was before: else few attempts would ever end."""
    history: list[ev.Event] = [STARTED, *(ev.TaskAdded(i, f"key{i}", (f"x={i}",)) for i in range(3))]
    state = fold(*history)
    for _ in range(draw(st.integers(5, 25))):
        event: ev.Event
        if draw(st.integers(0, 4)) == 0:
            event = draw(other_events)
        else:
            event = draw(attempt_events)
            last = state.tasks[event.task].attempt if event.task in state.tasks else None
            if last is not None and draw(st.integers(0, 3)) != 0:
                number = last.number + isinstance(event, ev.AttemptSubmitted)
                event = replace(event, attempt=number, epoch=last.epoch)
        apply(state, event, 0.0)
        history.append(event)
    return history


def fold(*history: ev.Event) -> SweepState:
    state = SweepState()
    for at, event in enumerate(history, start=1):
        apply(state, event, float(at))
    return state


def submitted(task: int = 0, attempt: int = 1, epoch: int = 1, source: str = "local") -> ev.AttemptSubmitted:
    return ev.AttemptSubmitted(task, attempt, epoch, source)


def begun(task: int = 0, attempt: int = 1, epoch: int = 1, source: str = "local") -> ev.AttemptStarted:
    return ev.AttemptStarted(task, attempt, epoch, source, host="node7", pid=42, output_dir="/out/0")


def finished(
    outcome: Outcome = DONE,
    task: int = 0,
    attempt: int = 1,
    epoch: int = 1,
    source: str = "local",
    retry_in: float | None = None,
) -> ev.AttemptFinished:
    return ev.AttemptFinished(task, attempt, epoch, source, outcome, retry_in)


ADDED = ev.TaskAdded(0, "key0", ("x=0",))


# --- laws


@given(histories())
@settings(deadline=None, max_examples=300)
def test_counts_add_up_to_the_tasks_and_slots_to_the_active_attempts(history: list[ev.Event]) -> None:
    state = SweepState()
    for at, event in enumerate(history):
        apply(state, event, float(at))
        assert Counter(state.counts) == Counter(task.state for task in state.tasks.values())
        assert min(state.counts.values(), default=0) >= 0
        assert state.counts[TaskState.PENDING] + state.active + state.ended == len(state.tasks) <= state.total
        for source in state.sources.values():
            active = [t.attempt for t in state.tasks.values() if t.state.active and t.attempt is not None]
            assert source.active == sum(attempt.source == source.name for attempt in active)
            assert source.submitted == source.active + source.completed + source.failed


@given(histories())
@settings(deadline=None, max_examples=300)
def test_a_task_is_committed_once(history: list[ev.Event]) -> None:
    state = SweepState()
    for at, event in enumerate(history):
        ended = {i: (t.state, copy.deepcopy(t.attempt)) for i, t in state.tasks.items() if t.state.terminal}
        apply(state, event, float(at))
        for index, before in ended.items():
            task = state.tasks[index]
            if event == ev.TaskReopened(index) and before[0] is TaskState.FAILED:
                assert task.state is TaskState.PENDING
            else:
                found = copy.deepcopy(task.attempt)
                if found is not None and before[1] is not None and isinstance(event, ev.ResultsCollected):
                    found.collected = before[1].collected  # that its files are home is no news of its end
                assert (task.state, found) == before


@given(histories())
@settings(deadline=None, max_examples=300)
def test_attempts_only_grow(history: list[ev.Event]) -> None:
    state = SweepState()
    last: dict[int, tuple[int, int]] = {}
    for at, event in enumerate(history):
        apply(state, event, float(at))
        for index, task in state.tasks.items():
            if task.attempt is not None:
                now = (task.attempt.number, task.attempt.epoch)
                assert now >= last.get(index, now)
                last[index] = now


@given(histories())
@settings(deadline=None, max_examples=300)
def test_what_is_not_of_the_current_attempt_changes_nothing(history: list[ev.Event]) -> None:
    state = SweepState()
    for at, event in enumerate(history):
        stale = isinstance(event, (ev.AttemptStarted, ev.AttemptFinished)) and not is_current(state, event)
        before = copy.deepcopy(state) if stale else None
        apply(state, event, float(at))
        if before is not None:
            before.last_event_at = float(at)
            assert state == before


@given(history=histories())
@settings(deadline=None, max_examples=150)
def test_the_replayed_journal_equals_the_live_state(history: list[ev.Event], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("sweep") / "journal.jsonl"
    journal = Journal.create(path)
    live = SweepState()
    for event in history:
        apply(live, event, journal.append(event))
    journal.close()
    again = replay(path)
    assert again.state == live
    assert (again.seq, again.torn) == (len(history), False)


@given(attempt_events | other_events)
@settings(deadline=None, max_examples=300)
def test_every_event_survives_json(event: ev.Event) -> None:
    assert read(written(event)) == event


# --- the life of a task


def test_a_task_that_completes() -> None:
    state = fold(STARTED, ADDED, submitted(), begun(), finished())
    task = state.tasks[0]
    assert (task.state, task.outcome) == (TaskState.COMPLETED, DONE)
    assert task.attempt is not None
    assert (task.attempt.submitted_at, task.attempt.started_at, task.attempt.ended_at) == (3.0, 4.0, 5.0)
    assert (task.attempt.host, task.attempt.pid, task.attempt.output_dir) == ("node7", 42, "/out/0")
    local = state.sources["local"]
    assert (local.active, local.submitted, local.completed, local.failed, local.busy_seconds) == (0, 1, 1, 0, 1.5)


def test_a_task_has_no_outcome_before_it_ends() -> None:
    history: list[ev.Event] = [STARTED, ADDED, submitted(), begun(), finished(BROKEN, retry_in=1.0)]
    for length in range(1, len(history) + 1):
        assert all(task.outcome is None for task in fold(*history[:length]).tasks.values())


def test_a_failure_with_a_retry_goes_back_to_pending_and_is_counted() -> None:
    state = fold(STARTED, ADDED, submitted(), begun(), finished(BROKEN, retry_in=0.0))
    assert state.tasks[0].state is TaskState.PENDING
    assert state.tasks[0].failures == {"error": 1}
    again = fold(STARTED, ADDED, submitted(), finished(BROKEN, retry_in=0.0), submitted(attempt=2), finished(attempt=2))
    assert again.tasks[0].outcome == DONE
    assert (again.sources["local"].completed, again.sources["local"].failed) == (1, 1)


def test_a_result_without_a_start_is_accepted() -> None:
    assert fold(STARTED, ADDED, submitted(), finished()).tasks[0].state is TaskState.COMPLETED


def test_a_start_that_is_heard_twice_keeps_the_first_time() -> None:
    attempt = fold(STARTED, ADDED, submitted(), begun(), begun()).tasks[0].attempt
    assert attempt is not None
    assert attempt.started_at == 4.0


@pytest.mark.parametrize(
    "late",
    [
        finished(BROKEN),
        finished(BROKEN, attempt=2),
        finished(BROKEN, epoch=2),
        begun(),
        submitted(attempt=2),
        ev.TaskReopened(0),
        ADDED,
    ],
)
def test_nothing_changes_a_completed_task(late: ev.Event) -> None:
    history = STARTED, ADDED, submitted(), begun(), finished()
    before, after = fold(*history), apply(fold(*history), late, 6.0)
    before.last_event_at = 6.0
    assert after == before


def test_the_same_attempt_is_not_submitted_twice() -> None:
    state = fold(STARTED, ADDED, submitted(attempt=2), finished(BROKEN, attempt=2, retry_in=0.0), submitted(attempt=1))
    assert state.tasks[0].state is TaskState.PENDING
    assert state.sources["local"].submitted == 1


def test_a_later_epoch_may_use_the_number_again() -> None:
    state = fold(STARTED, ADDED, submitted(), finished(BROKEN, retry_in=0.0), submitted(epoch=2), finished(epoch=1))
    assert state.tasks[0].state is TaskState.SUBMITTED


def test_lost_attempts_name_their_hosts() -> None:
    lost = Outcome.failed(Cause.LOST, "gone")
    state = fold(
        STARTED,
        ADDED,
        submitted(),
        begun(),
        finished(lost, retry_in=0.0),
        submitted(attempt=2, source="server1"),
        finished(lost, attempt=2, source="server1", retry_in=0.0),
    )
    assert state.tasks[0].lost_on == ("node7 (local)", "unknown host (server1)")
    assert state.tasks[0].failures == {"lost": 2}


def test_an_attempt_lost_with_its_launcher_is_no_mark_against_the_task() -> None:
    resumed = ev.SweepResumed(epoch=2, host="laptop", pid=4712)
    gone = finished(outcome=Outcome.failed(Cause.LOST, "its launcher is gone"), retry_in=0.0)
    task = fold(ADDED, submitted(), begun(), resumed, gone).tasks[0]
    assert (task.state, task.failures, task.lost_on) == (TaskState.PENDING, {"cancelled": 1}, ())


def test_a_reopened_task_starts_with_a_clean_record_and_a_new_number() -> None:
    history: list[ev.Event] = [STARTED, ADDED, submitted(), finished(BROKEN), ev.TaskReopened(0)]
    task = fold(*history).tasks[0]
    assert (task.state, task.failures, task.lost_on, task.outcome) == (TaskState.PENDING, {}, (), None)
    assert fold(*history, submitted()).tasks[0].state is TaskState.PENDING
    assert fold(*history, submitted(attempt=2)).tasks[0].state is TaskState.SUBMITTED


def test_planned_tasks_count_before_they_are_known() -> None:
    state = fold(STARTED, ev.TasksPlanned(5), ADDED)
    assert (state.total, state.counts[TaskState.PENDING]) == (5, 1)
    assert fold(STARTED, ev.TasksPlanned(5), ev.TasksPlanned(3)).total == 8


# --- sweep and sources


def test_the_sweep_begins_ends_and_goes_on() -> None:
    assert SweepState().status == "empty"
    history: list[ev.Event] = [STARTED, ev.SweepFinished("interrupted", "Ctrl-C")]
    state = fold(*history)
    assert (state.id, state.status, state.reason, state.ended_at) == (STARTED.id, "interrupted", "Ctrl-C", 2.0)
    state = fold(*history, ev.SweepResumed(epoch=2, host="laptop", pid=1))
    assert (state.status, state.reason, state.ended_at, state.epoch) == ("running", "", None, 2)


def test_a_source_goes_down_comes_back_and_is_disabled() -> None:
    start = ev.SourceStarted("local", "local", 4, {"cores": 8})
    history: list[ev.Event] = [STARTED, start, ev.SourceDown("local", "gone")]
    local = fold(*history).sources["local"]
    assert (local.type, local.slots, local.facts) == ("local", 4, {"cores": 8})
    assert (local.down, local.disabled) == ("gone", None)
    assert fold(*history, ev.SourceUp("local")).sources["local"].down is None
    history += [ev.SourceDisabled("local", "by hand")]
    assert fold(*history).sources["local"].disabled == "by hand"
    local = fold(*history, ev.SweepResumed(epoch=2, host="laptop", pid=1)).sources["local"]
    assert (local.down, local.disabled) == (None, None)


def test_stale_results_are_counted_and_nothing_else() -> None:
    state = fold(STARTED, ADDED, submitted(attempt=2), ev.ResultStale(0, 1, 1, "local", DONE))
    assert (state.stale, state.tasks[0].state) == (1, TaskState.SUBMITTED)


@pytest.mark.parametrize(
    "event", [ev.Note("INFO", "hello"), ev.StrategyFailed("mine", "raised"), ev.CommandDone("1", "cancel", True)]
)
def test_what_is_only_told_changes_only_the_time(event: ev.Event) -> None:
    before, after = fold(STARTED, ADDED), apply(fold(STARTED, ADDED), event, 9.0)
    before.last_event_at = 9.0
    assert after == before


# --- events as JSON


def written(event: ev.Event) -> dict[str, Any]:
    """The event as it stands in a journal, without number and time."""
    line: dict[str, Any] = json.loads(encode(1, 0, event))
    return {key: value for key, value in line.items() if key not in ("seq", "t")}


def read(data: dict[str, Any]) -> Any:
    return line_of({"seq": 1, "t": 1768487422.000001, **data})


def test_an_event_of_a_later_version_is_passed_over_and_its_new_fields_are_ignored() -> None:
    assert isinstance(read({"event": "task_praised", "task": 1}), Unknown)
    assert read({"event": "task_reopened", "task": 1, "by": "someone"}) == ev.TaskReopened(1)


def test_an_event_that_lacks_a_field_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="required field `key`"):
        read({"event": "task_added", "task": 1, "overrides": []})


def test_what_is_not_set_is_not_written() -> None:
    assert written(ev.Note("INFO", "hello")) == {"event": "note", "level": "INFO", "message": "hello"}
    assert written(finished())["outcome"] == {"status": "completed", "duration": 1.5, "return_value": 0.25}


@pytest.mark.parametrize("value", [0, 0.0, False, [], {}])
def test_a_return_value_that_is_false_is_still_a_return_value(value: Any) -> None:
    event = finished(Outcome(TaskState.COMPLETED, return_value=value))
    assert read(written(event)) == event


def test_every_event_tells_what_it_is() -> None:
    kinds = [cls.kind for cls in ev.KINDS.values()]
    assert len(set(kinds)) == len(kinds)
    undocumented = [cls for cls in ev.KINDS.values() if not cls.__doc__ or cls.__doc__ == ev.Event.__doc__]
    assert undocumented == []
