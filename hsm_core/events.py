"""Every event of a sweep's journal, and the version of its format.

A journal is a list of these, one JSON object a line:
`{"seq": 1, "t": "2026-01-15T14:30:22.123456Z", "event": "attempt_started", ...}`.
State is what `hsm_core.state.apply` makes of them in order. A new event, or a new field
with a default, keeps the version; anything an older reader would misread raises it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hsm_core.task import Outcome

FORMAT = 1
"""Version of the journal's format; the first event carries it."""


@dataclass(frozen=True)
class SweepStarted:
    """A launcher opened the sweep: the first line of every journal."""

    kind: ClassVar[str] = "sweep_started"
    id: str
    format: int
    hsm: str
    python: str
    hydra: str
    cwd: str
    argv: tuple[str, ...]
    """the command line that launched the sweep, interpreter first"""
    app: str
    host: str
    pid: int
    epoch: int = 1
    commit: str | None = None
    dirty: bool | None = None
    config_hash: str | None = None


@dataclass(frozen=True)
class SweepResumed:
    """A launcher opened the sweep again; attempts of earlier epochs are history."""

    kind: ClassVar[str] = "sweep_resumed"
    epoch: int
    host: str
    pid: int
    argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceStarted:
    """A source is ready to run tasks."""

    kind: ClassVar[str] = "source_started"
    source: str
    type: str
    slots: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceDown:
    """A source can't run tasks now; what runs there is unknown, not lost."""

    kind: ClassVar[str] = "source_down"
    source: str
    reason: str
    final: bool = False
    """it will not come back by itself"""


@dataclass(frozen=True)
class SourceUp:
    """A source that was down answers again."""

    kind: ClassVar[str] = "source_up"
    source: str


@dataclass(frozen=True)
class SourceDisabled:
    """A source was taken out of the sweep by decision."""

    kind: ClassVar[str] = "source_disabled"
    source: str
    reason: str


@dataclass(frozen=True)
class TasksPlanned:
    """The sweeper handed over this many tasks."""

    kind: ClassVar[str] = "tasks_planned"
    count: int


@dataclass(frozen=True)
class TaskAdded:
    """A task is known to the sweep and waits for a slot."""

    kind: ClassVar[str] = "task_added"
    task: int
    key: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class TaskReopened:
    """A failed task is to be run again (`--retry-failed`)."""

    kind: ClassVar[str] = "task_reopened"
    task: int


@dataclass(frozen=True)
class AttemptSubmitted:
    """Intent: written before the source hears of the attempt. `memory`: MiB it may use."""

    kind: ClassVar[str] = "attempt_submitted"
    task: int
    attempt: int
    epoch: int
    source: str
    memory: float | None = None


@dataclass(frozen=True)
class AttemptStarted:
    """The task function of the attempt is about to run."""

    kind: ClassVar[str] = "attempt_started"
    task: int
    attempt: int
    epoch: int
    source: str
    host: str | None = None
    pid: int | None = None
    output_dir: str | None = None


@dataclass(frozen=True)
class AttemptFinished:
    """The attempt left a result record, or the source proved that there will be none.

    `retry_in` is the engine's decision, taken before this line was written: None ends the
    task with this outcome, a number of seconds puts it back among the pending.
    """

    kind: ClassVar[str] = "attempt_finished"
    task: int
    attempt: int
    epoch: int
    source: str
    outcome: Outcome
    retry_in: float | None = None


@dataclass(frozen=True)
class ResultStale:
    """A result of an attempt that is no longer the current one; kept on disk, ignored."""

    kind: ClassVar[str] = "result_stale"
    task: int
    attempt: int
    epoch: int
    source: str
    outcome: Outcome


@dataclass(frozen=True)
class StrategyFailed:
    """The distribution strategy raised or answered nonsense; round_robin goes on."""

    kind: ClassVar[str] = "strategy_failed"
    strategy: str
    reason: str


@dataclass(frozen=True)
class CommandDone:
    """The engine's answer to a command of the control spool."""

    kind: ClassVar[str] = "command_done"
    id: str
    command: str
    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Note:
    """Something people should know; changes no state. `level` is a logging level's name."""

    kind: ClassVar[str] = "note"
    level: str
    message: str
    source: str | None = None
    task: int | None = None


@dataclass(frozen=True)
class SweepFinished:
    """The launcher is done with the sweep. `status`: finished, interrupted or stopped."""

    kind: ClassVar[str] = "sweep_finished"
    status: str
    reason: str = ""


Event = (
    SweepStarted
    | SweepResumed
    | SourceStarted
    | SourceDown
    | SourceUp
    | SourceDisabled
    | TasksPlanned
    | TaskAdded
    | TaskReopened
    | AttemptSubmitted
    | AttemptStarted
    | AttemptFinished
    | ResultStale
    | StrategyFailed
    | CommandDone
    | Note
    | SweepFinished
)

SourceEvent = AttemptStarted | AttemptFinished | SourceDown | SourceUp | Note
"""What a source may post. The engine fills in `AttemptFinished.retry_in`."""

_KINDS: dict[str, Any] = {cls.kind: cls for cls in Event.__args__}
_FIELDS = {kind: tuple(f.name for f in dataclasses.fields(cls)) for kind, cls in _KINDS.items()}
_TUPLES = frozenset({"argv", "overrides"})


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object, its kind under `event`; fields that are None are left out."""
    out: dict[str, Any] = {"event": event.kind}
    for name in _FIELDS[event.kind]:
        value = getattr(event, name)
        if value is None:
            continue
        out[name] = value.to_json() if isinstance(value, Outcome) else value
    return out


def from_json(data: Mapping[str, Any]) -> Event | None:
    """The inverse of `to_json`; None for a kind this version does not know.

    Fields this version does not know are ignored. Raises ValueError where a known event
    lacks a field or holds one of the wrong shape.
    """
    cls = _KINDS.get(data.get("event", ""))
    if cls is None:
        return None
    fields: dict[str, Any] = {}
    try:
        for name in _FIELDS[cls.kind]:
            if name not in data:
                continue
            value = data[name]
            if name == "outcome":
                value = Outcome.from_json(value)
            elif name in _TUPLES:
                value = tuple(value)
            fields[name] = value
        event: Event = cls(**fields)
    except (TypeError, KeyError, AttributeError) as e:
        raise ValueError(f"event '{cls.kind}' is incomplete or malformed: {e}") from e
    return event
