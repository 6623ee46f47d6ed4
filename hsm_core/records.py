"""Result records as the launcher reads them: checked, never trusted to be well-formed.

They are written by `hsm_core.remote.supervisor`. A record is the only proof that an attempt ended.
"""

from __future__ import annotations

import json
import logging
import pickle
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tblib

from hsm_core.events import AttemptFinished
from hsm_core.exceptions import TaskError
from hsm_core.harmless import harmless
from hsm_core.remote.describe import rebuild
from hsm_core.remote.names import task_name
from hsm_core.remote.record import FORMAT, read
from hsm_core.task import Attempt, Cause, Outcome, TaskState, attempt_id
from hsm_core.text import inert, printable

log = logging.getLogger(__name__)

_SHOWN = 2000
"""characters of a message or a return value that the journal carries"""
_HUGE = 10**15
"""no number in a record comes near this"""
_LONGEST_CHAIN = 100
"""errors that may hang together; the writer stops at half of that"""

_TOLD: Mapping[str, tuple[type, ...]] = {
    "exit_code": (int,),
    "signal": (int,),
    "duration": (int, float),
    "peak_memory": (int, float),
    "host": (str,),
    "output_dir": (str,),
    "warning": (str,),
}
"""what an outcome takes over as it stands; each may be missing"""
_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    **_TOLD,
    "message": (str,),
    "pickle": (str,),
    "working_dir": (str,),
    "task_name": (str,),
}


def record_path(records: Path, attempt: str) -> Path:
    return records / f"{attempt}.json"


def read_record(records: Path, attempt: str) -> Mapping[str, Any] | None:
    """The record of an attempt (its id), None where there is none.

    Raises ValueError when the file is no JSON, or too large: records appear whole, by rename.
    """
    try:
        record: Mapping[str, Any] = read(record_path(records, attempt))
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
        message=_short(record.get("message") or ""),
        return_value=None if value is None else _shown(value["value"]),
        record=f".hsm/results/{attempt}.json",
        **{key: record.get(key) for key in _TOLD},
    )


def settle(records: Path, attempt: Attempt, why: str) -> AttemptFinished:
    """How an attempt ended of which nobody will tell any more: by its record, else lost because of `why`."""
    try:
        record = read_record(records, attempt.id)
    except ValueError as e:
        outcome = Outcome.failed(Cause.LOST, f"invalid result: {e}")
    else:
        outcome = Outcome.failed(Cause.LOST, why) if record is None else outcome_of(record, attempt.id)
    return AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, attempt.source, outcome)


def _problem(record: object, attempt: str) -> str | None:
    if not isinstance(record, Mapping):
        return f"a {type(record).__name__} instead of a JSON object"
    if record.get("format") != FORMAT:
        return f"format {reprlib.repr(record.get('format'))}, this hsm reads {FORMAT}"
    numbers: list[Any] = [record.get(key) for key in ("task", "attempt", "epoch")]
    if not all(type(n) is int and 0 <= n < _HUGE for n in numbers) or attempt_id(*numbers) != attempt:
        return f"it belongs to another attempt than {attempt}"
    if record.get("status") not in ("completed", "failed"):
        return f"status {reprlib.repr(record.get('status'))}"
    causes = [cause.value for cause in Cause] if record["status"] == "failed" else [None]
    if record.get("cause") not in causes:
        return f"cause {reprlib.repr(record.get('cause'))}, {record['status']}"
    for key, kinds in _OPTIONAL.items():
        field = record.get(key)
        # The comparison is false for NaN as well.
        if field is not None and (type(field) not in kinds or (str not in kinds and not 0 <= field < _HUGE)):
            return f"{key} is {reprlib.repr(field)}"
    value = record.get("return_value")
    if value is not None and not (isinstance(value, Mapping) and "value" in value and type(value.get("exact")) is bool):
        return f"return_value is {reprlib.repr(value)}"
    return None if record.get("error") is None else _error_problem(record["error"])


def _error_problem(error: object) -> str | None:
    for _ in range(_LONGEST_CHAIN):
        if not isinstance(error, Mapping):
            return f"error is {reprlib.repr(error)}"
        for key in ("type", "module", "message"):
            if type(error.get(key)) is not str:
                return f"error.{key} is {reprlib.repr(error.get(key))}"
        frames, chain = error.get("frames"), error.get("chain")
        if not isinstance(frames, list) or not all(_is_frame(frame) for frame in frames):
            return f"error.frames is {reprlib.repr(frames)}"
        if chain is None:
            return None
        if isinstance(chain, Mapping) and chain.get("relation") not in ("cause", "context"):
            return f"error.chain.relation is {reprlib.repr(chain.get('relation'))}"
        error = chain
    return f"error.chain is longer than {_LONGEST_CHAIN}"


def _is_frame(frame: object) -> bool:
    if not isinstance(frame, list) or [type(part) for part in frame[:2]] != [str, str] or len(frame) != 3:
        return False
    return frame[2] is None or (type(frame[2]) is int and 0 <= frame[2] < 1 << 31)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _shown(value: Any) -> Any:
    """A return value as the journal carries it: short, and JSON without NaN."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return f"<{type(value).__name__}, nested too deep>"
    if len(text) > _SHOWN:
        return _short(text)
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
        try:
            return _unpickled(record, records)
        except (Exception, SystemExit) as e:  # a class of the app's may refuse to be rebuilt with anything
            words = "the return value of %s can't be loaded (%s: %s); what is shown of it stands in its place"
            log.warning(words, task_name(record["task"]), type(e).__name__, printable(str(e)))
    return value["value"]


def exception(record: Mapping[str, Any], records: Path, trusted: bool) -> BaseException:
    """The exception a task failed with, its traceback and chain rebuilt from the record.

    The exception itself where a pickle from a trusted source has it; else one of the same
    class if that is built in, or known here and the source trusted; else a TaskError.
    """
    error = record.get("error")
    if error is None:
        return TaskError(inert(record.get("message") or "the task failed"))
    rebuilt: BaseException | None = None
    if trusted and record.get("pickle"):
        try:
            rebuilt = _unpickled(record, records)
        except (Exception, SystemExit):  # as above; the record's own words follow
            rebuilt = None
    if not isinstance(rebuilt, BaseException):
        rebuilt = _likeness(error, trusted)
    return _with_history(harmless(rebuilt), error, trusted)


def _unpickled(record: Mapping[str, Any], records: Path) -> Any:
    with open(records / Path(record["pickle"]).name, "rb") as f:
        return pickle.load(f)  # noqa: S301 - from a source that shares our files or is trusted by name


def _likeness(error: Mapping[str, Any], trusted: bool) -> BaseException:
    told = f"{error['module']}.{error['type']}: {error['message']}"
    cls: Any = sys.modules.get(error["module"]) if trusted or error["module"] == "builtins" else None
    for name in error["type"].split("."):
        cls = getattr(cls, name, None)
    if not isinstance(cls, type) or not issubclass(cls, Exception):
        return TaskError(told)
    # The arguments of some, of OSError with a file name, are not all that its text is made of.
    for arguments in (error.get("args"), [error["message"]]):
        made = _made(cls, arguments, error["message"])
        if made is not None:
            return made
    return TaskError(told)


def _made(cls: type[BaseException], arguments: Any, message: str) -> BaseException | None:
    """An exception of this class, None where these arguments don't give one with this message."""
    try:
        made = rebuild(cls, tuple(arguments), {})
        return made if str(made) == message else None
    except Exception:  # the class wants other arguments; not all have them in the record
        return None


def _with_history(rebuilt: BaseException, error: Mapping[str, Any], trusted: bool) -> BaseException:
    traceback = _traceback(error["frames"])
    chain = error.get("chain")
    if chain is not None:
        setattr(rebuilt, f"__{chain['relation']}__", _with_history(harmless(_likeness(chain, trusted)), chain, trusted))
    return rebuilt.with_traceback(traceback)


def _traceback(frames: list[list[Any]]) -> TracebackType | None:
    """The frames as a traceback; made one by one, because there may be as many as the recursion limit allows."""
    built: TracebackType | None = None
    for filename, function, line in reversed(frames):
        code = {"co_filename": inert(filename), "co_name": inert(function)}
        frame = {"f_globals": {}, "f_code": code, "f_lineno": line or 1}
        described = {"tb_frame": frame, "tb_lineno": line or 1, "tb_next": None}
        one: TracebackType = tblib.Traceback.from_dict(described).as_traceback()
        # By this name, where there is no __name__, Hydra 1.4 knows rebuilt frames, and shows the app's only.
        one.tb_frame.f_globals["_SyntheticTraceback"] = None
        built = TracebackType(built, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return built
