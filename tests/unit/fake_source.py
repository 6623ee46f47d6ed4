"""A source that runs nothing, and an engine over it: journal, owner, spool and lanes are the real ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from hsm_core import events as ev
from hsm_core.audience import Listener
from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.control import Command, Spool
from hsm_core.engine import Engine
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.journal import Journal, replay
from hsm_core.lanes import Lane, Lanes
from hsm_core.owner import Owner
from hsm_core.signals import Signal, Signals
from hsm_core.sources.base import CommandResult, Post, Source, SweepContext
from hsm_core.state import SweepState
from hsm_core.strategies import Strategy, load_strategy
from hsm_core.task import Attempt, Cause, Outcome, Task, TaskState

ID = "sweep_20260115_143022"
DONE = Outcome(TaskState.COMPLETED, duration=1.0)
E = TypeVar("E", bound=ev.Event)


def failed(cause: Cause, message: str = "no", **facts: Any) -> Outcome:
    return Outcome.failed(cause, message, **facts)


def tasks(count: int, first: int = 0) -> list[Task]:
    return [Task(i, (f"x={i}",), f"key{i}") for i in range(first, first + count)]


def at_once(attempt: Attempt) -> Outcome | None:
    """Every attempt completes as soon as it is submitted."""
    return DONE


def held(attempt: Attempt) -> Outcome | None:
    """Every attempt runs until the test ends it."""
    return None


class FakeSource(Source):
    """Ends attempts as `ending` says when they are submitted; where that says None, when it is told to.

    `refusals`: what `submit` raises, call by call, None for a call that is taken. `gate`: `start` waits for it.
    `broken`: what `start` raises. `stubborn`: attempts don't end when they are cancelled. `outlives`: they need no
    launcher.
    """

    type = "fake"

    def __init__(
        self,
        name: str,
        slots: int = 1,
        ending: Callable[[Attempt], Outcome | None] = at_once,
        *,
        refusals: Iterable[SourceError | None] = (),
        gate: threading.Event | None = None,
        broken: Exception | None = None,
        stubborn: bool = False,
        outlives: bool = False,
    ) -> None:
        super().__init__(name, SourceConfig("fake"), slots)
        self.outlives_launcher = outlives
        self.ending = ending
        self.active: dict[int, Attempt] = {}
        """the running attempt of each task"""
        self.starts = 0
        self.submitted: list[Attempt] = []
        self.attached: list[Attempt] = []
        self.cancelled: list[Attempt] = []
        self.before_submit: Callable[[Sequence[Attempt]], None] = lambda attempts: None
        self.after_cancel: Callable[[], object] = lambda: None
        self.refusals = deque(refusals)
        self._refused: set[str] = set()
        self._gate = gate
        self._broken = broken
        self._stubborn = stubborn

    def start(self, sweep: SweepContext, post: Post) -> None:
        self.starts += 1
        self.post = post
        if self._gate is not None:
            assert self._gate.wait(60)
        if self._broken is not None:
            raise self._broken

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self.before_submit(attempts)
        refusal = self.refusals.popleft() if self.refusals else None
        if refusal is not None:
            self._refused.update(attempt.id for attempt in attempts)
            raise refusal
        self.submitted.extend(attempts)
        self._take(attempts)
        assert len(self.active) <= self.slots
        for attempt in attempts:
            which = (attempt.task.index, attempt.number, attempt.epoch, self.name)
            self.post(ev.AttemptStarted(*which, host=f"{self.name}.host", pid=4712))
            outcome = self.ending(attempt)
            if outcome is not None:
                self.finish(attempt.task.index, outcome)

    def attach(self, attempts: Sequence[Attempt]) -> None:
        self.attached.extend(attempts)
        self._take(attempts)
        for attempt in attempts:
            if attempt.id in self._refused:
                self.finish(attempt.task.index, failed(Cause.LOST, "it was never taken"))

    def _take(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            assert attempt.source == self.name
            assert attempt.task.index not in self.active
            self.active[attempt.task.index] = attempt

    def finish(self, task: int, outcome: Outcome = DONE) -> ev.AttemptFinished:
        """End the running attempt of a task; returns what was posted."""
        attempt = self.active.pop(task)
        event = ev.AttemptFinished(task, attempt.number, attempt.epoch, self.name, outcome)
        self.post(event)
        return event

    def down(self, reason: str, final: bool = False) -> None:
        """Say so; with `final` what runs is lost, as the interface wants it."""
        self.post(ev.SourceDown(self.name, reason, final))
        if final:
            for task in list(self.active):
                self.finish(task, failed(Cause.LOST, reason))

    def up(self) -> None:
        self.post(ev.SourceUp(self.name))

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        assert self.starts, "a source that was not started is told nothing"
        self.cancelled.extend(attempts)
        for attempt in attempts:
            if self.active.get(attempt.task.index) == attempt and not self._stubborn:
                self.finish(attempt.task.index, failed(Cause.CANCELLED, "ended before it was done"))
        self.after_cancel()

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """There are no files."""

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        raise Unavailable(f"{self.name}: there is no such host")

    def stop(self, timeout: float = 10.0) -> None:
        self.active.clear()

    def leave(self, timeout: float = 10.0) -> None:
        if not self.outlives_launcher:
            self.stop(timeout)


class _Pulse(Spool):
    """The spool of a rig."""

    def __init__(self, hsm: Path, rig: Rig) -> None:
        super().__init__(hsm)
        self._rig = rig

    def poll(self) -> list[Command]:
        self._rig.idle()
        return super().poll()


class Rig:
    """An engine over sources in a directory, resumed where that holds a sweep; use it in a `with`.

    `events` has all it journaled, `reactions` are told each of them. `idle` is called in every round of the
    engine's loop in which it looks for commands. On leaving, the journal must add up to the engine's state.
    """

    def __init__(
        self,
        directory: Path,
        *sources: Source,
        config: HsmConfig | None = None,
        strategy: str | Strategy = "round_robin",
        seed: int | None = None,
        weights: Mapping[str, float] | None = None,
        priorities: Mapping[str, int] | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.hsm = directory / ".hsm"
        self.records = self.hsm / "results"
        self.journal_path = self.hsm / "journal.jsonl"
        self.events: list[ev.Event] = []
        self.reactions: list[Callable[[ev.Event], None]] = []
        self.idle: Callable[[], None] = lambda: None
        self.records.mkdir(parents=True, exist_ok=True)
        self.owner = Owner.acquire(self.hsm)
        first: ev.SweepStarted | ev.SweepResumed
        if self.journal_path.exists():
            past = replay(self.journal_path)
            state, self._journal = past.state, Journal.open(self.journal_path, past)
            first = ev.SweepResumed(self.owner.epoch, "laptop", 4711)
        else:
            state, self._journal = SweepState(), Journal.create(self.journal_path)
            facts: dict[str, Any] = {"hsm": "0.1.0", "python": "3.11", "hydra": "1.3.2", "cwd": "/", "app": "train"}
            first = ev.SweepStarted(id=ID, format=ev.FORMAT, argv=(), host="laptop", pid=4711, **facts)
        config = config or HsmConfig()
        if isinstance(strategy, str):
            strategy = load_strategy(strategy, seed=seed, base=directory)
        weights, priorities = weights or {}, priorities or {}
        lanes = {s.name: Lane(s, weights.get(s.name, 1.0), priorities.get(s.name, 50)) for s in sources}
        self._sweep = SweepContext(ID, ID, directory, self.owner.epoch, self.hsm, config, 1)
        self._started = False
        self.listeners: list[Listener] = [*listeners, self._hear]
        spool = _Pulse(self.hsm, self)
        rest = (self._journal, self.owner, Lanes(lanes, strategy), spool, self.records, self.listeners)
        self.engine = Engine(config, state, *rest)
        self.engine.record(first)

    @property
    def state(self) -> SweepState:
        return self.engine.state

    def run(self, jobs: int | Iterable[Task]) -> None:
        """Run this many new tasks, or these; the sources are started before the first."""
        if isinstance(jobs, int):
            jobs = tasks(jobs, first=len(self.state.tasks))
        if isinstance(jobs, list):
            self.engine.record(ev.TasksPlanned(len(jobs)))
        if not self._started:
            self._started = True
            self.engine.start(self._sweep)
        signals = Signals(lambda: False)
        signals.take()
        try:
            with signals.heard_by(lambda signum: self.engine.post(Signal(signum))):
                self.engine.run(jobs)
        finally:
            signals.give_back()

    def once(self, kind: type[E], *actions: Callable[[E], object], **fields: Any) -> None:
        """Do these, in the engine's thread, at the first event of this kind which has these fields."""

        def react(event: ev.Event) -> None:
            if isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items()):
                self.reactions.remove(react)
                for action in actions:
                    action(event)

        self.reactions.append(react)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def dealt(self) -> str:
        """The names of the sources that got the attempts, in order, one after the other."""
        return "".join(event.source for event in self.of(ev.AttemptSubmitted))

    def ended(self, task: int) -> Outcome | None:
        """How a task ended."""
        return self.state.tasks[task].outcome

    def count(self, state: TaskState) -> int:
        """How many tasks are in this state."""
        return self.state.counts[state]

    def _hear(self, event: ev.Event, state: SweepState, at: float) -> None:
        self.events.append(event)
        for source in state.sources.values():
            assert 0 <= source.active <= source.slots or source.slots == 0
        for react in list(self.reactions):
            react(event)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._journal.close()
        self.owner.release()
        if error is None:
            assert replay(self.journal_path).state == self.state
