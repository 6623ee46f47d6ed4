"""Result records: whatever stands in them, the launcher says what came of the attempt, and runs nothing of theirs."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core import events as ev
from hsm_core.journal import Journal, replay
from hsm_core.records import exception, outcome_of, read_record, return_value, settle
from hsm_core.state import SweepState, apply
from hsm_core.task import Attempt, Cause, Outcome, Task, TaskState

ID = "task_003.2.1"
ATTEMPT = Attempt(Task(2, ("x=1",), "key2"), 2, 1, "server1")
NUMBERS = {"format": 1, "task": 2, "attempt": 2, "epoch": 1}
COMPLETED: dict[str, Any] = {
    **NUMBERS,
    "status": "completed",
    "message": "",
    "exit_code": 0,
    "signal": None,
    "duration": 1.25,
    "peak_memory": 85.0,
    "host": "node7",
    "pid": 4711,
    "output_dir": "/out/task_003",
    "working_dir": "/out/task_003",
    "task_name": "train",
    "return_value": {"value": 0.5, "exact": True},
    "pickle": None,
    "warning": None,
}
ERROR: dict[str, Any] = {
    "type": "ValueError",
    "module": "builtins",
    "message": "no",
    "traceback": "Traceback (most recent call last):\nValueError: no",
    "frames": [["train.py", "main", 7], ["model.py", "build", 12]],
    "chain": {
        "relation": "cause",
        "type": "KeyError",
        "module": "builtins",
        "message": "'lr'",
        "args": ["lr"],
        "frames": [["model.py", "lookup", None]],
        "chain": None,
    },
}
FAILED: dict[str, Any] = {
    **COMPLETED,
    "status": "failed",
    "cause": "error",
    "message": "ValueError: no",
    "return_value": None,
    "error": ERROR,
}


def changed(record: Mapping[str, Any], path: str, value: Any) -> Any:
    """The record with another value at a place like `error.chain.type`."""
    out = copy.deepcopy(record)
    *folders, last = path.split(".")
    inner: Any = out
    for name in folders:
        inner = inner[name]
    inner[last] = value
    return out


# --- what a record says ----------------------------------------------------------------------------


def test_a_completed_attempt() -> None:
    assert outcome_of(COMPLETED, ID) == Outcome(
        TaskState.COMPLETED,
        exit_code=0,
        duration=1.25,
        peak_memory=85.0,
        host="node7",
        output_dir="/out/task_003",
        return_value=0.5,
        record=".hsm/results/task_003.2.1.json",
    )


def test_a_failed_attempt() -> None:
    outcome = outcome_of({**FAILED, "cause": "oom", "signal": 9, "exit_code": None}, ID)
    assert (outcome.status, outcome.cause, outcome.message) == (TaskState.FAILED, Cause.OOM, "ValueError: no")
    assert (outcome.signal, outcome.exit_code) == (9, None)


def test_a_record_with_nothing_but_what_must_be_there() -> None:
    assert outcome_of({**NUMBERS, "status": "completed"}, ID).completed
    assert outcome_of({**NUMBERS, "status": "failed", "cause": "timeout"}, ID).cause is Cause.TIMEOUT


def test_what_a_newer_version_adds_is_ignored() -> None:
    assert outcome_of({**COMPLETED, "energy": [1, 2]}, ID) == outcome_of(COMPLETED, ID)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ([1, "a", {"b": None}], [1, "a", {"b": None}]),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ([1, math.nan], "[1, NaN]"),
        ("x" * 3000, '"' + "x" * 1999 + "..."),
        (list(range(3000)), json.dumps(list(range(3000)))[:2000] + "..."),
    ],
    ids=repr,
)
def test_the_journal_carries_a_short_likeness_of_the_return_value(value: Any, shown: Any) -> None:
    assert outcome_of(changed(COMPLETED, "return_value.value", value), ID).return_value == shown


def test_the_journal_carries_a_short_message() -> None:
    assert len(outcome_of(changed(FAILED, "message", "x" * 10**6), ID).message) < 2100


# --- records that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("record", [None, True, 7, 1.5, "text", [], [COMPLETED], {}])
def test_what_is_no_record(record: Any) -> None:
    outcome = outcome_of(record, ID)
    assert outcome.cause is Cause.LOST
    assert outcome.message.startswith("invalid result: ")
    assert outcome.record is None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", 2, "format 2, this hsm reads 1"),
        ("format", "1", "format '1', this hsm reads 1"),
        ("format", ["x"] * 1000, "format ['x', 'x', 'x', 'x', 'x', 'x', ...], this hsm reads 1"),
        ("task", 3, "it belongs to another attempt than task_003.2.1"),
        ("attempt", 1, "it belongs to another attempt than task_003.2.1"),
        ("epoch", 2, "it belongs to another attempt than task_003.2.1"),
        ("epoch", "1", "it belongs to another attempt than task_003.2.1"),
        ("epoch", True, "it belongs to another attempt than task_003.2.1"),
        pytest.param("task", 10**4300 - 1, "it belongs to another attempt than task_003.2.1", id="longest-number"),
        ("task", -1, "it belongs to another attempt than task_003.2.1"),
        ("status", "running", "status 'running'"),
        ("status", ["completed"], "status ['completed']"),
        ("status", None, "status None"),
        ("cause", "laziness", "cause 'laziness', failed"),
        ("cause", None, "cause None, failed"),
        ("cause", {}, "cause {}, failed"),
        ("message", 5, "message is 5"),
        ("exit_code", "0", "exit_code is '0'"),
        ("exit_code", True, "exit_code is True"),
        ("exit_code", -9, "exit_code is -9"),
        ("signal", 9.5, "signal is 9.5"),
        ("duration", math.nan, "duration is nan"),
        ("duration", math.inf, "duration is inf"),
        ("duration", -1.0, "duration is -1.0"),
        pytest.param("duration", 10**400, "duration is 1", id="duration-longer-than-a-float"),
        ("peak_memory", [], "peak_memory is []"),
        ("host", {}, "host is {}"),
        ("output_dir", 5, "output_dir is 5"),
        ("working_dir", 5, "working_dir is 5"),
        ("task_name", 5, "task_name is 5"),
        ("warning", ["x"], "warning is ['x']"),
        ("pickle", 5, "pickle is 5"),
        ("return_value", 0.5, "return_value is 0.5"),
        ("return_value", {"exact": True}, "return_value is {'exact': True}"),
        ("return_value", {"value": 1}, "return_value is {'value': 1}"),
        ("return_value", {"value": 1, "exact": "yes"}, "return_value is {'"),
        ("error", "ValueError", "error is 'ValueError'"),
        ("error.type", None, "error.type is None"),
        ("error.module", 5, "error.module is 5"),
        ("error.message", ["no"], "error.message is ['no']"),
        ("error.frames", None, "error.frames is None"),
        ("error.frames", [["a.py", "f"]], "error.frames is [['a.py', 'f']]"),
        ("error.frames", [["a.py", "f", 10**10]], "error.frames is [['a.py', 'f', 10000000000]]"),
        ("error.frames", [["a.py", 5, 1]], "error.frames is [['a.py', 5, 1]]"),
        ("error.chain", [], "error is []"),
        ("error.chain.relation", "class", "error.chain.relation is 'class'"),
        ("error.chain.type", None, "error.type is None"),
        ("error.chain.chain", "x", "error is 'x'"),
    ],
)
def test_what_is_wrong_with_a_record_is_told(path: str, value: Any, words: str) -> None:
    outcome = outcome_of(changed(FAILED, path, value), ID)
    assert outcome.cause is Cause.LOST
    assert outcome.message.startswith(f"invalid result: {words}")
    assert len(outcome.message) < 200


def test_a_completed_attempt_has_no_cause() -> None:
    assert outcome_of({**COMPLETED, "cause": "error"}, ID).message == "invalid result: cause 'error', completed"


def test_a_chain_without_end() -> None:
    error = ERROR
    for _ in range(200):
        error = {**error, "chain": {**error, "relation": "context"}}
    assert outcome_of({**FAILED, "error": error}, ID).message.startswith("invalid result: error.chain is longer than")


def test_a_return_value_as_deep_as_the_reader_can_take() -> None:
    for depth in range(20, sys.getrecursionlimit()):
        text = "[" * depth + "]" * depth
        try:
            value = json.loads(text)
        except RecursionError:
            break
        assert outcome_of({**COMPLETED, "return_value": {"value": value, "exact": True}}, ID).completed


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
places = st.sampled_from([*FAILED, *(f"error.{key}" for key in ERROR), "error.chain.frames", "error.chain.type"])


def journaled(outcome: Outcome, path: Path) -> None:
    """What an outcome does to a journal and to the state that it adds up to: the same in both."""
    state = SweepState()
    facts: dict[str, Any] = {"hsm": "0", "python": "3", "hydra": "1", "cwd": "/", "app": "a", "host": "h"}
    journal = Journal.create(path)
    for event in (
        ev.SweepStarted(id="sweep_1", format=ev.FORMAT, argv=(), pid=1, **facts),
        ev.TaskAdded(2, "key2", ("x=1",)),
        ev.AttemptSubmitted(2, 2, 1, "server1"),
        ev.AttemptFinished(2, 2, 1, "server1", outcome),
    ):
        apply(state, event, journal.append(event))
    journal.close()
    assert replay(path).state == state
    assert math.isfinite(state.sources["server1"].busy_seconds)


@given(record=st.sampled_from([COMPLETED, FAILED]), changes=st.lists(st.tuples(places, any_json), max_size=2))
@settings(deadline=None, max_examples=300)
def test_no_record_breaks_anything(
    record: dict[str, Any], changes: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for place, value in changes:
        try:
            record = changed(record, place, value)
        except (TypeError, KeyError):  # an earlier change took the place away
            continue
    folder = tmp_path_factory.mktemp("results")
    path = folder / f"{ID}.json"
    path.write_text(json.dumps(record))
    outcome = settle(folder, ATTEMPT, "gone").outcome
    journaled(outcome, folder / "journal.jsonl")
    if outcome.record is None:
        assert outcome.message.startswith("invalid result: ")
        return
    stored = read_record(folder, ID)
    assert stored is not None
    assert isinstance(exception(stored, folder, trusted=False), BaseException)
    return_value(stored, folder, trusted=False)


@given(any_json)
@settings(deadline=None)
def test_any_json_is_a_result(record: Any) -> None:
    assert not outcome_of(record, ID).completed


# --- records on the disk ---------------------------------------------------------------------------


def test_settled_by_its_record(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.json").write_text(json.dumps(COMPLETED))
    assert settle(tmp_path, ATTEMPT, "gone") == ev.AttemptFinished(2, 2, 1, "server1", outcome_of(COMPLETED, ID))


def test_lost_without_a_record(tmp_path: Path) -> None:
    assert read_record(tmp_path, ID) is None
    event = settle(tmp_path, ATTEMPT, "its host is gone")
    assert event == ev.AttemptFinished(2, 2, 1, "server1", Outcome.failed(Cause.LOST, "its host is gone"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 512,
        json.dumps(COMPLETED).encode()[:-10],
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"task": ' + b"9" * 5000 + b"}",
        json.dumps(COMPLETED).encode() + b"\n{}",
    ],
    ids=["empty", "zeros", "half", "no UTF-8", "deep", "long number", "two"],
)
def test_files_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{ID}.json").write_bytes(content)
    outcome = settle(tmp_path, ATTEMPT, "gone").outcome
    assert outcome.cause is Cause.LOST
    assert outcome.message.startswith("invalid result: no JSON: ")
