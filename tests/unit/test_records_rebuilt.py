"""What comes back of a task: its exception with traceback and chain, its value, and no pickle that isn't trusted."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from hsm_core.exceptions import TaskError
from hsm_core.records import exception, outcome_of, return_value, settle
from hsm_core.remote import describe
from hsm_core.task import Attempt, Cause, Task

ID = "task_001.1.1"
ATTEMPT = Attempt(Task(0, (), "key0"), 1, 1, "server1")
NUMBERS = {"format": 1, "task": 0, "attempt": 1, "epoch": 1}
COMPLETED: dict[str, Any] = {**NUMBERS, "status": "completed", "return_value": {"value": 0.5, "exact": True}}
ERROR: dict[str, Any] = {
    "type": "ValueError",
    "module": "builtins",
    "message": "no",
    "args": ["no"],
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
FAILED: dict[str, Any] = {**NUMBERS, "status": "failed", "cause": "error", "message": "no", "error": ERROR}


def with_error(**fields: Any) -> dict[str, Any]:
    return {**FAILED, "error": {**ERROR, **fields}}


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as e:
        return e


def record_of(error: BaseException) -> dict[str, Any]:
    """A record as the worker writes it, read back."""
    record: dict[str, Any] = json.loads(json.dumps({**FAILED, **describe.failure(error)}))
    assert outcome_of(record, ID).cause is Cause.ERROR
    return record


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("lr"),
        ZeroDivisionError(),
        FileNotFoundError(2, "No such file", "x.csv"),
        OSError("?"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_builtin_exception_comes_back_as_itself(tmp_path: Path, error: Exception) -> None:
    again = exception(record_of(raised(error)), tmp_path, trusted=False)
    assert (type(again), str(again)) == (type(error), str(error))
    assert [frame.name for frame in traceback.extract_tb(again.__traceback__)] == ["raised"]
    assert traceback.extract_tb(again.__traceback__)[0].filename == __file__


def test_a_chain_of_exceptions_comes_back(tmp_path: Path) -> None:
    def fail() -> None:
        try:
            try:
                dict[str, int]()["lr"]
            except KeyError:
                int("x")
        except ValueError as e:
            raise RuntimeError("no model") from e

    with pytest.raises(RuntimeError) as caught:
        fail()
    again = exception(record_of(caught.value), tmp_path, trusted=False)
    first = again.__cause__
    assert isinstance(first, ValueError)
    assert isinstance(first.__context__, KeyError)
    assert (first.__cause__, first.__suppress_context__) == (None, False)
    told, expected = ("".join(traceback.format_exception(error)) for error in (again, caught.value))
    for words in ("KeyError: 'lr'", "During handling of", "invalid literal", "The above exception was the direct"):
        assert words in told
        assert words in expected
    assert told.index("KeyError") < told.index("invalid literal") < told.index("RuntimeError: no model")


def test_an_exception_that_wants_more_than_a_message(tmp_path: Path) -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    again = exception(record_of(caught.value), tmp_path, trusted=False)
    assert "UnicodeDecodeError" in (type(again).__name__ + str(again))
    assert str(caught.value) in str(again)
    assert again.__traceback__ is not None


class Strange(Exception):
    """Wants what nobody can know."""

    def __init__(self, *, model: object) -> None:
        super().__init__(f"strange {model}")


def test_an_unknown_exception_becomes_a_task_error_with_its_name(tmp_path: Path) -> None:
    again = exception(record_of(raised(Strange(model="mlp"))), tmp_path, trusted=False)
    assert isinstance(again, TaskError)
    assert str(again) == f"{__name__}.Strange: strange mlp"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_what_would_end_the_launcher_becomes_a_task_error(tmp_path: Path, error: BaseException) -> None:
    again = exception(record_of(raised(error)), tmp_path, trusted=False)
    assert isinstance(again, TaskError)
    assert type(error).__name__ in str(again)


@pytest.mark.parametrize("name", ["print", "__name__", "__import__", "object", "nothing", "", "a.b", "ValueError.args"])
def test_a_type_that_is_no_exception(tmp_path: Path, name: str) -> None:
    again = exception(with_error(type=name), tmp_path, trusted=False)
    assert isinstance(again, TaskError)
    assert str(again) == f"builtins.{name}: no"


def test_a_traceback_as_long_as_python_allows(tmp_path: Path) -> None:
    def dive() -> None:
        dive()

    with pytest.raises(RecursionError) as caught:
        dive()
    record = record_of(caught.value)
    assert len(record["error"]["frames"]) > 500
    again = exception(record, tmp_path, trusted=False)
    assert isinstance(again, RecursionError)
    assert len(list(traceback.walk_tb(again.__traceback__))) == len(record["error"]["frames"])


def test_frames_as_strange_as_they_may_be(tmp_path: Path) -> None:
    frames = [["", "", 0], ["\0", "\ud800", None], ["a" * 5000, "<lambda>", 2**31 - 1]]
    record = with_error(frames=frames)
    assert outcome_of(record, ID).cause is Cause.ERROR
    again = exception(record, tmp_path, trusted=False)
    assert [frame.f_code.co_name for frame, _ in traceback.walk_tb(again.__traceback__)] == ["", "\ud800", "<lambda>"]


def test_a_failure_without_an_exception(tmp_path: Path) -> None:
    again = exception({**FAILED, "error": None, "message": "ended at its time limit"}, tmp_path, trusted=False)
    assert isinstance(again, TaskError)
    assert str(again) == "ended at its time limit"


# --- pickles ---------------------------------------------------------------------------------------


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_of_an_untrusted_source_is_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "trap.pickle").write_bytes(pickle.dumps(Trap(mark)))
    completed = {**COMPLETED, "return_value": {"value": "<Trap>", "exact": False}, "pickle": "trap.pickle"}
    failed = {**FAILED, "pickle": "trap.pickle"}
    for record in (completed, failed):
        outcome_of(record, ID)
        (tmp_path / f"{ID}.json").write_text(json.dumps(record))
        settle(tmp_path, ATTEMPT, "gone")
        assert return_value(record, tmp_path, trusted=False) in ("<Trap>", None)
        assert isinstance(exception(record, tmp_path, trusted=False), Exception)
        assert not mark.exists()
    return_value(completed, tmp_path, trusted=True)
    assert mark.exists(), "the trap works"


def test_the_pickle_of_a_trusted_source_gives_the_exact_value(tmp_path: Path) -> None:
    (tmp_path / "value.pickle").write_bytes(pickle.dumps({1, 2}))
    record = {**COMPLETED, "return_value": {"value": "<set>", "exact": False}, "pickle": "value.pickle"}
    assert return_value(record, tmp_path, trusted=True) == {1, 2}
    assert return_value(record, tmp_path, trusted=False) == "<set>"


def test_a_value_that_json_holds_needs_no_pickle(tmp_path: Path) -> None:
    assert return_value({**COMPLETED, "pickle": "missing"}, tmp_path, trusted=True) == 0.5
    assert return_value({**COMPLETED, "return_value": None}, tmp_path, trusted=True) is None


def test_the_pickled_exception_of_a_trusted_source_is_taken_with_the_records_traceback(tmp_path: Path) -> None:
    (tmp_path / "error.pickle").write_bytes(pickle.dumps(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")))
    again = exception({**FAILED, "pickle": "error.pickle"}, tmp_path, trusted=True)
    assert isinstance(again, UnicodeDecodeError)
    assert [frame.name for frame in traceback.extract_tb(again.__traceback__)] == ["main", "build"]
    assert isinstance(again.__cause__, KeyError)


@pytest.mark.parametrize("content", [None, b"", b"no pickle", pickle.dumps("no exception")])
def test_where_the_pickle_gives_no_exception_the_record_does(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "error.pickle").write_bytes(content)
    again = exception({**FAILED, "pickle": "error.pickle"}, tmp_path, trusted=True)
    assert (type(again), str(again)) == (ValueError, "no")


def test_a_pickle_is_looked_for_among_the_records_only(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    mark = tmp_path / "mark"
    (tmp_path / "error.pickle").write_bytes(pickle.dumps(Trap(mark)))
    for name in ("../error.pickle", str(tmp_path / "error.pickle")):
        again = exception({**FAILED, "pickle": name}, tmp_path / "results", trusted=True)
        assert isinstance(again, ValueError)
    assert not mark.exists()
