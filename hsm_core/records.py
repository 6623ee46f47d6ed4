"""Result records as the launcher reads them: checked, never trusted to be well-formed.

The writer is `hsm_core.remote.supervisor`. A record is the only proof that an attempt ended.
"""

from __future__ import annotations

import builtins
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tblib

from hsm_core.events import AttemptFinished
from hsm_core.exceptions import TaskError
from hsm_core.task import Attempt, Cause, Outcome, TaskState, attempt_id

FORMAT = 1
_SHOWN = 2000
"""characters of a return value that the journal carries"""

_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "exit_code": (int,),
    "signal": (int,),
    "duration": (int, float),
    "peak_memory": (int, float),
    "host": (str,),
    "output_dir": (str,),
    "warning": (str,),
}


def record_path(records: Path, attempt: str) -> Path:
    return records / f"{attempt}.json"


def read_record(records: Path, attempt: str) -> Mapping[str, Any] | None:
    """The record of an attempt (its id), None where there is none.

    Raises ValueError when the file is not JSON: records appear whole, by rename.
    """
    try:
        with open(record_path(records, attempt), encoding="utf-8") as f:
            record: Mapping[str, Any] = json.load(f)
    except FileNotFoundError:
        return None
    return record


def outcome_of(record: object, attempt: str) -> Outcome:
    """What a record says of the attempt with this id.

    A record that is not one, or is another attempt's, gives a failed outcome that says so.
    """
    problem = _problem(record, attempt)
    if problem is not None:
        return Outcome.failed(Cause.LOST, f"invalid result: {problem}")
    assert isinstance(record, Mapping)
    value = record.get("return_value")
    return Outcome(
        status=TaskState(record["status"]),
        cause=None if record.get("cause") is None else Cause(record["cause"]),
        message=record.get("message") or "",
        return_value=None if value is None else _shown(value["value"]),
        record=f".hsm/results/{attempt}.json",
        **{key: record.get(key) for key in _OPTIONAL},
    )


def settle(records: Path, attempt: Attempt, why: str) -> AttemptFinished:
    """How an attempt ended of which nobody will tell any more: by its record, else lost because of `why`."""
    record = read_record(records, attempt.id)
    outcome = Outcome.failed(Cause.LOST, why) if record is None else outcome_of(record, attempt.id)
    return AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, attempt.source, outcome)


def _problem(record: object, attempt: str) -> str | None:
    if not isinstance(record, Mapping):
        return f"a {type(record).__name__} instead of a JSON object"
    if record.get("format") != FORMAT:
        return f"format {record.get('format')!r}, this hsm reads {FORMAT}"
    numbers = tuple(record.get(key) for key in ("task", "attempt", "epoch"))
    if not all(isinstance(n, int) for n in numbers) or attempt_id(*numbers) != attempt:  # type: ignore[arg-type]
        return f"it belongs to another attempt than {attempt}"
    if record.get("status") not in ("completed", "failed"):
        return f"status {record.get('status')!r}"
    if record["status"] == "failed" and record.get("cause") not in [c.value for c in Cause]:
        return f"cause {record.get('cause')!r}"
    for key, kinds in _OPTIONAL.items():
        if record.get(key) is not None and not isinstance(record[key], kinds):
            return f"{key} is {record[key]!r}"
    value = record.get("return_value")
    if value is not None and not (isinstance(value, Mapping) and "value" in value):
        return f"return_value is {value!r}"
    return None


def _shown(value: Any) -> Any:
    """A return value as the journal carries it: short, and JSON without NaN."""
    text = json.dumps(value)
    if len(text) > _SHOWN:
        return text[:_SHOWN] + "..."
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return text.strip('"')
    return value


def return_value(record: Mapping[str, Any], records: Path, trusted: bool) -> Any:
    """The task's return value: exact where JSON or a pickle from a trusted source has it.

    Otherwise its likeness in JSON.
    """
    value = record.get("return_value") or {"value": None, "exact": True}
    if not value["exact"] and trusted and record.get("pickle"):
        return _unpickled(record, records)
    return value["value"]


def exception(record: Mapping[str, Any], records: Path, trusted: bool) -> BaseException:
    """The exception a task failed with, its traceback and chain rebuilt from the record.

    The exception itself where a pickle from a trusted source has it; else one of the same
    class if that is built in; else a TaskError.
    """
    error = record.get("error")
    if error is None:
        return TaskError(record.get("message") or "the task failed")
    rebuilt: BaseException | None = None
    if trusted and record.get("pickle"):
        try:
            rebuilt = _unpickled(record, records)
        except Exception:  # a class of the app's may refuse to be rebuilt with anything
            rebuilt = None
    if not isinstance(rebuilt, BaseException):
        rebuilt = _likeness(error)
    return _with_history(rebuilt, error)


def _unpickled(record: Mapping[str, Any], records: Path) -> Any:
    with open(records / Path(record["pickle"]).name, "rb") as f:
        return pickle.load(f)  # noqa: S301 - from a source that shares our files or is trusted by name


def _likeness(error: Mapping[str, Any]) -> BaseException:
    cls = getattr(builtins, error["type"], None) if error["module"] == "builtins" else None
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            return cls(error["message"])
        except TypeError:  # UnicodeDecodeError and its like want more than a message
            pass
    return TaskError(f"{error['module']}.{error['type']}: {error['message']}")


def _with_history(rebuilt: BaseException, error: Mapping[str, Any]) -> BaseException:
    traceback = _traceback(error["frames"])
    chain = error.get("chain")
    if chain is not None:
        setattr(rebuilt, f"__{chain['relation']}__", _with_history(_likeness(chain), chain))
    return rebuilt.with_traceback(traceback)


def _traceback(frames: list[list[Any]]) -> Any:
    described: dict[str, Any] | None = None
    for filename, function, line in reversed(frames):
        code = {"co_filename": filename, "co_name": function}
        frame = {"f_globals": {"__name__": "", "__file__": filename}, "f_code": code, "f_lineno": line}
        described = {"tb_frame": frame, "tb_lineno": line, "tb_next": described}
    return None if described is None else tblib.Traceback.from_dict(described).as_traceback()
