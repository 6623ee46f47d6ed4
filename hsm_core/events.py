"""Every event of a sweep's journal, and the version of its format.

A journal is a list of these, one JSON object a line:
`{"event": "attempt_started", "seq": 1, "t": 1768487422.123456, ...}`, `t` in seconds since 1970.
State is what `hsm_core.state.apply` makes of them in order. A new event, or a new field
with a default, keeps the version; anything an older reader would misread raises it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from hsm_core.task import Outcome

FORMAT = 1
"""Version of the journal's format; the first event carries it."""


def _kind(name: str) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="event", tag=_kind):
    """Base of all events. A class below it is an event, by that alone; fields at their default are not written.

    Nothing here refers back to itself, so there is nothing for the garbage collector to do (`gc=False`).
    """

    kind: ClassVar[str]
    """the class's name in the journal: `attempt_started` for AttemptStarted"""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = sys.intern(_kind(cls.__name__))  # one object, which is quickly found to be the same


class SweepStarted(Event, frozen=True):
    """A launcher opened the sweep: the first line of every journal."""

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


class SweepResumed(Event, frozen=True):
    """A launcher opened the sweep again; attempts of earlier epochs are history."""

    epoch: int
    host: str
    pid: int
    argv: tuple[str, ...] = ()
    cwd: str = ""


class ConfigChanged(Event, frozen=True):
    """Another configuration is the recorded one from here on: a changed one that was accepted, or the first again."""

    payload: str
    """folder below `.hsm` that holds it"""
    config_hash: str | None = None
    keys: tuple[str, ...] = ()
    """some of those that differ, in words"""


class CodeChanged(Event, frozen=True):
    """Tasks run other code from here on: that of this launcher, or that of the sweep's start again."""

    snapshot: str
    """folder below `.hsm` that holds it"""
    files: tuple[str, ...] = ()
    """some of those that differ"""
    count: int | None = None
    """how many differ; None: the code before is gone, so that can't be told"""
    commit_before: str | None = None
    commit: str | None = None
    dirty: bool | None = None


class SourceStarted(Event, frozen=True):
    """A source is ready to run tasks."""

    source: str
    type: str
    slots: int
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)


class SourceDown(Event, frozen=True):
    """A source can't run tasks now; what runs there is unknown, not lost."""

    source: str
    reason: str
    final: bool = False
    """it will not come back by itself"""


class SourceUp(Event, frozen=True):
    """A source that was down answers again."""

    source: str


class SourceQueue(Event, frozen=True):
    """What the scheduler behind a source says of its jobs: how many wait, by the reason, and how many run, by the node.

    It comes when something is new, and about numbers alone once in a while: a journal does not grow with every question
    to a scheduler.
    """

    source: str
    pending: Mapping[str, int] = msgspec.field(default_factory=dict)
    running: Mapping[str, int] = msgspec.field(default_factory=dict)


class SourceDisabled(Event, frozen=True):
    """A source was taken out of the sweep by decision."""

    source: str
    reason: str


class TasksPlanned(Event, frozen=True):
    """The sweeper handed over this many tasks."""

    count: int


class TaskAdded(Event, frozen=True):
    """A task is known to the sweep and waits for a slot."""

    task: int
    key: str
    overrides: tuple[str, ...]


class TaskReopened(Event, frozen=True):
    """A failed task is to be run again (`--retry-failed`)."""

    task: int


class AttemptSubmitted(Event, frozen=True):
    """Intent: written before the source hears of the attempt.

    `memory`: MiB it may use; `needs`: MiB that a scheduler is to be asked for at least.
    """

    task: int
    attempt: int
    epoch: int
    source: str
    memory: float | None = None
    needs: float | None = None


class AttemptStarted(Event, frozen=True):
    """The task function of the attempt is about to run. `gpus`: those it leased, as CUDA_VISIBLE_DEVICES names them."""

    task: int
    attempt: int
    epoch: int
    source: str
    host: str | None = None
    pid: int | None = None
    output_dir: str | None = None
    gpus: Sequence[str] | None = None


class AttemptFinished(Event, frozen=True):
    """The attempt left a result record, or the source proved that there will be none.

    `retry_in` is the engine's decision, taken before this line was written: None ends the
    task with this outcome, a number of seconds puts it back among the pending.
    """

    task: int
    attempt: int
    epoch: int
    source: str
    outcome: Outcome
    retry_in: float | None = None


class ResultStale(Event, frozen=True):
    """A result of an attempt that is no longer the current one; kept on disk, ignored."""

    task: int
    attempt: int
    epoch: int
    source: str
    outcome: Outcome


class ResultsCollected(Event, frozen=True):
    """The output directories of ended attempts are home, complete; `attempts` are (task, attempt, epoch)."""

    source: str
    attempts: tuple[tuple[int, int, int], ...]


class StrategyFailed(Event, frozen=True):
    """The distribution strategy raised or answered nonsense; round_robin goes on."""

    strategy: str
    reason: str


class CommandDone(Event, frozen=True):
    """The engine's answer to a command of the control spool."""

    id: str
    command: str
    ok: bool
    message: str = ""


class Note(Event, frozen=True):
    """Something people should know; changes no state. `level` is a logging level's name."""

    level: str
    message: str
    source: str | None = None
    task: int | None = None


class SweepFinished(Event, frozen=True):
    """The launcher is done with the sweep. `status`: finished, interrupted or stopped.

    `exit_code`: the launcher's own, unless the app goes on to another one.
    """

    status: str
    reason: str = ""
    exit_code: int | None = None


SourceEvent = AttemptStarted | AttemptFinished | SourceDown | SourceUp | SourceQueue | ResultsCollected | Note
"""What a source may post, and the result sync for it. The engine fills in `AttemptFinished.retry_in`."""

KINDS: Mapping[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}
"""All events, by what the journal calls them."""
