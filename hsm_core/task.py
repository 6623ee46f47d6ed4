"""Task, attempt and outcome: the records everything else passes around."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hsm_core.remote.names import task_name


class Cause(str, enum.Enum):
    """Why an attempt failed."""

    ERROR = "error"
    """the app raised, or ended with an exit code other than 0"""
    OOM = "oom"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    LOST = "lost"
    """process, agent or host gone"""
    REJECTED = "rejected"
    """the source will never take it"""
    CANCELLED = "cancelled"


class TaskState(str, enum.Enum):
    PENDING = "pending"
    SUBMITTED = "submitted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    # That of Enum is a Python function, which counting tasks by state calls four times an event.
    __hash__ = str.__hash__

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def active(self) -> bool:
        return self in _ACTIVE


_TERMINAL = frozenset({TaskState.COMPLETED, TaskState.FAILED})
_ACTIVE = frozenset({TaskState.SUBMITTED, TaskState.RUNNING})


def task_index(name: str) -> int:
    """The index behind `task_001`, `001` or `1`.

    Raises ValueError when the text is none of these.
    """
    digits = name.removeprefix("task_")
    if not digits.isdecimal() or int(digits) < 1:
        raise ValueError(f"'{name}' is no task name; tasks are named task_001, task_002, ...")
    return int(digits) - 1


def task_indices(text: str) -> frozenset[int]:
    """The indices behind a list of tasks and ranges, `task_001,task_050:task_100` (ends included).

    Raises ValueError when a part is neither, or a range runs backwards.
    """
    indices: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition(":")
        start, end = task_index(first), task_index(last or first)
        if end < start:
            raise ValueError(f"the range '{part.strip()}' runs backwards; write {task_name(end)}:{task_name(start)}")
        indices.update(range(start, end + 1))
    return frozenset(indices)


def task_key(overrides: Sequence[str], occurrence: int = 0) -> str:
    """Identity of a task by content: 16 hex digits over its overrides without `hydra.*`.

    The order of the overrides does not matter. `occurrence` tells points apart which a
    sweep holds more than once: 0 for the first, 1 for the second.
    """
    own = sorted(o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/")))
    text = "\0".join([*own, str(occurrence)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """One Hydra job of a sweep."""

    index: int
    overrides: tuple[str, ...]
    key: str
    requires_gpu: bool = False

    @property
    def name(self) -> str:
        return task_name(self.index)


@dataclass(frozen=True)
class Attempt:
    """One try to run a task on one source. `number` counts from 1 and never repeats in a task."""

    task: Task
    number: int
    epoch: int
    source: str
    timeout: float | None = None
    """seconds of run time after which the source ends it with cause `timeout`"""
    grace: float = 10.0
    """seconds between SIGTERM and SIGKILL when it is ended early"""
    memory: float | None = None
    """MiB it may use; None: no limit"""
    needs: float | None = None
    """MiB that a scheduler is to be asked for at least: an earlier one ran out of less; None: nothing is known"""
    left: str | None = None
    """the output directory, here, of an earlier attempt on another source, of which this one may want what it left"""

    @property
    def id(self) -> str:
        return attempt_id(self.task.index, self.number, self.epoch)


def attempt_id(index: int, number: int, epoch: int) -> str:
    """Name of an attempt in messages to agents and in file names: `task_001.2.1`."""
    return f"{task_name(index)}.{number}.{epoch}"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How an attempt ended, as its result record says (see `hsm_core.remote.record`)."""

    status: TaskState
    """COMPLETED or FAILED"""
    cause: Cause | None = None
    message: str = ""
    """one line for people; empty when completed"""
    exit_code: int | None = None
    signal: int | None = None
    duration: float | None = None
    """seconds, measured where the task ran"""
    peak_memory: float | None = None
    """MiB, the largest process of the task"""
    given: float | None = None
    """MiB that its scheduler gave it, of one that ran out of memory"""
    host: str | None = None
    output_dir: str | None = None
    return_value: Any = None
    """what can be shown of the return value as JSON"""
    warning: str | None = None
    record: str | None = None
    """the result record, relative to the sweep directory"""

    @property
    def completed(self) -> bool:
        return self.status is TaskState.COMPLETED

    @classmethod
    def failed(cls, cause: Cause, message: str, **facts: Any) -> Outcome:
        return cls(status=TaskState.FAILED, cause=cause, message=message, **facts)
