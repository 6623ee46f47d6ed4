"""The engine: one loop, one thread, the only owner of a sweep's state.

Everything that happens reaches it through one queue: sources post events, signals and the
control spool post requests. It decides, writes the journal, folds the event into the state,
tells the listeners, and hands attempts to sources.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import msgspec

from hsm_core import events as ev
from hsm_core.audience import Audience, Listener
from hsm_core.backlog import Backlog
from hsm_core.config import HsmConfig
from hsm_core.control import Spool
from hsm_core.crashpoint import crashpoint
from hsm_core.ending import Ending, to_leave
from hsm_core.exceptions import NoSourceLeft, Rejected, SweepInterrupted, SweepStopped, Unavailable
from hsm_core.fail_fast import FailureLimit
from hsm_core.journal import Journal
from hsm_core.lanes import Lanes, SourceReady, SourceUnusable
from hsm_core.owner import Owner
from hsm_core.records import settle
from hsm_core.retry import last_words, next_memory, retry_delay
from hsm_core.scribe import Scribe
from hsm_core.signals import Signal
from hsm_core.sources.base import Source, SweepContext
from hsm_core.space import Room
from hsm_core.state import SweepState, apply, is_current
from hsm_core.strategies import SourceView, StrategyFault
from hsm_core.task import Attempt, Cause, Outcome, Task, TaskState
from hsm_core.unreachable import Unreachable
from hsm_core.unsettled import Unsettled

log = logging.getLogger(__name__)

HEARTBEAT = 0.5
"""seconds between looks at the control spool"""


Message = ev.SourceEvent | SourceReady | SourceUnusable | Signal


class Engine:
    """Runs tasks over sources. `run` may be called many times; sources stay warm between."""

    def __init__(
        self,
        config: HsmConfig,
        state: SweepState,
        journal: Journal,
        owner: Owner,
        lanes: Lanes,
        spool: Spool,
        records: Path,
        listeners: Sequence[Listener] = (),
        failures: FailureLimit | None = None,
        unfinished: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state = state
        self._config = config
        self.scribe = Scribe(journal, owner, self.post)
        """the writer of the journal"""
        self._room = Room(records, self.post)
        self._owner = owner
        self._lanes = lanes
        self._spool = spool
        self._records = records
        self._audience = Audience(listeners)
        self._failures = failures or FailureLimit(config.fail_fast)
        self._unfinished = unfinished
        """says, once all tasks have ended, whether something of them is still to be waited for"""
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._backlog = Backlog()
        self._tasks: dict[int, Task] = {}
        """tasks under way in this run"""
        self._attempts: dict[int, Attempt] = {}
        """the current attempt of every active task"""
        self._barred: dict[int, set[str]] = {}
        """sources that rejected a task, by task"""
        self._unsettled = Unsettled()
        self._unreachable = Unreachable(config.compute.unreachable_timeout, lanes)
        self._ending = Ending(config.grace)
        self._next_look = 0.0

    def post(self, message: Message) -> None:
        """Hand something to the loop; from any thread, and from signal handlers."""
        if isinstance(message, Signal):  # the loop itself may be waiting for room on the disk
            self.scribe.ending = self.scribe.ending or self._interrupt(message.signum)
        self._queue.put(message)

    def record(self, event: ev.Event) -> None:
        """Write an event to the journal, fold it into the state and tell the listeners.

        Waits while the disk is full. Raises Superseded once another launcher owns the sweep, SweepStopped
        where the journal can't be written; nothing was folded or told then.
        """
        crashpoint("event_decided")
        at = self.scribe.append(event)
        crashpoint("event_journaled")
        apply(self.state, event, at)
        self._audience.tell(event, self.state, at)
        crashpoint("event_told")

    def start(self, sweep: SweepContext) -> None:
        """Start the sources; tasks go out to each as soon as it is ready."""
        self._lanes.start(sweep, self.post, self.post)

    def adopt(self, attempts: Mapping[str, Sequence[Attempt]]) -> None:
        """Take over attempts that an earlier launcher left active, by source.

        A source of this run gets its own once it is ready. Those of any other are settled by
        their result records; without one they are lost. A task that is lost so is run again
        only if `run` is given it.
        """
        for name, left in attempts.items():
            self._attempts.update((attempt.task.index, attempt) for attempt in left)
            if name in self._lanes:
                self._unsettled.leave(name, left)
                continue
            for attempt in left:
                self.post(settle(self._records, attempt, f"its source {name} is not part of the resumed sweep"))

    def run(self, tasks: Iterable[Task]) -> None:
        """Run tasks until each has ended, for good or ill.

        Raises SweepStopped when the sweep was stopped before; what ran has been ended by then.
        """
        self._backlog.open(tasks)
        self._fill()
        self.drain()  # a signal since the last run above all: then nothing is started
        while True:
            self._fill()
            self._dispatch()
            if self._backlog.exhausted and not self._tasks and not self._attempts and not self._unfinished():
                break
            self._check_sources()
            for lost in self._unreachable.lost(list(self._attempts.values()), self.state):
                self._finished(lost)
            if self._ending.why is not None and self._ending.reached(self._attempts.values()):
                self.scribe.sync()
                raise self._ending.why
            self._wait()
        self.scribe.sync()

    # --- tasks come in and go out

    def _fill(self) -> None:
        if self._ending.why is not None:
            return
        for task in self._backlog.arrivals():
            if task.index not in self.state.tasks:
                self.record(ev.TaskAdded(task.index, task.key, task.overrides))
            self._tasks[task.index] = task
            if task.index not in self._attempts:
                self._backlog.put(task)

    def _dispatch(self) -> None:
        now = time.monotonic()
        self._backlog.wake(now)
        if self._ending.why is not None or self._lanes.settles_at() > now:
            return
        batches: dict[str, list[Attempt]] = {}
        passed: list[Task] = []
        while self._backlog and self._room.enough() and (available := self._lanes.available(self.state)):
            task = self._backlog.pop()
            barred = self._barred.get(task.index, set())
            # Where nobody else is left, those that rejected it are asked again: their answer ends it.
            last = barred >= self._lanes.alive(self.state)
            fitting = [view for view in available if last or view.name not in barred]
            if not fitting:
                passed.append(task)
                continue
            attempt = self._attempt(task, self._choose(task, fitting))
            known = (task.index, attempt.number, attempt.epoch, attempt.source, attempt.memory, attempt.needs)
            self.record(ev.AttemptSubmitted(*known))
            crashpoint("intent_journaled")
            self._attempts[task.index] = attempt
            batches.setdefault(attempt.source, []).append(attempt)
        self._backlog.put_first(*passed)
        if batches:
            self._owner.check()
            self.scribe.sync()
            crashpoint("intents_synced")
        for name, batch in batches.items():
            self._submit(name, batch)
            crashpoint("submitted")

    def _choose(self, task: Task, available: Sequence[SourceView]) -> str:
        try:
            return self._lanes.choose(task, available)
        except StrategyFault as e:
            self.record(ev.StrategyFailed(self._lanes.fall_back(), str(e)))
            log.warning("%s; round_robin goes on in its place", e)
            return self._lanes.choose(task, available)

    def _attempt(self, task: Task, source: str) -> Attempt:
        last = self.state.tasks[task.index].attempt
        memory, needs = next_memory(self._config, last)
        return Attempt(
            task=task,
            number=1 if last is None else last.number + 1,
            epoch=self._owner.epoch,
            source=source,
            timeout=self._config.timeout,
            grace=self._config.grace,
            memory=memory,
            needs=needs,
            left=None if last is None or last.source == source else last.output_dir,
        )

    def _submit(self, name: str, batch: Sequence[Attempt]) -> None:
        try:
            self._lanes[name].submit(batch)
        except Rejected as e:
            outcome = Outcome.failed(Cause.REJECTED, str(e))
            for attempt in batch:
                self.post(ev.AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, name, outcome))
        except Unavailable as e:
            self.post(ev.SourceDown(name, str(e)))
            self._unsettled.unanswered(self._lanes[name], batch, str(e))

    # --- what happens

    def _wait(self) -> None:
        """Handle everything that is in the queue, waiting for the first of it.

        What that brings is synced with the intents that follow from it, or before the next wait.
        """
        self.scribe.sync()
        crashpoint("outcomes_synced")
        now = time.monotonic()
        moments = [now + HEARTBEAT, self._backlog.wakes_at, self._ending.moment]
        if self._lanes.settles_at() > now:
            moments.append(self._lanes.settles_at())
        try:
            message = self._queue.get(timeout=max(0.0, min(moments) - now))
        except queue.Empty:
            self._look_at_spool()
            return
        self._owner.check()
        self._handle(message)
        self.drain()
        if time.monotonic() >= self._next_look:
            self._look_at_spool()

    def drain(self) -> None:
        """Handle everything that is in the queue by now."""
        while True:
            try:
                message = self._queue.get_nowait()
            except queue.Empty:
                return
            self._handle(message)

    def _handle(self, message: Message) -> None:
        if isinstance(message, ev.AttemptFinished):
            self._finished(message)
        elif isinstance(message, ev.AttemptStarted):
            if is_current(self.state, message):
                self.record(message)
        elif isinstance(message, SourceReady):
            self._ready(self._lanes[message.source])
        elif isinstance(message, SourceUnusable):
            self._unusable(message.source, message.reason)
        elif isinstance(message, Signal):
            self._signalled(message.signum)
        elif isinstance(message, ev.SourceDown) and message.final:
            self.record(message)
            self._disable(message.source, message.reason)
        else:
            self.record(message)
            self._unreachable.hear(message)
            if isinstance(message, ev.SourceUp):
                self._ask(self._lanes[message.source])

    def _unusable(self, source: str, reason: str) -> None:
        self._lanes.unusable(source)
        self._disable(source, reason)

    def _disable(self, source: str, reason: str) -> None:
        self.record(ev.SourceDisabled(source, reason))
        for attempt in self._unsettled.take(source):
            self.post(settle(self._records, attempt, f"its source can't be used: {reason}"))

    def _ready(self, source: Source) -> None:
        seen = self.state.sources.get(source.name)
        if seen is not None and seen.disabled is not None:  # it went down for good since
            self._unusable(source.name, seen.disabled)
            return
        self._lanes.ready(source.name)
        self.record(ev.SourceStarted(source.name, source.type, source.slots, dict(source.describe())))
        self._ask(source)

    def _ask(self, source: Source) -> None:
        """Settle what only this source knows of, now that it answers."""
        self._unsettled.ask(source)
        if self._ending.why is not None:
            self._cancel(source)

    def _finished(self, event: ev.AttemptFinished) -> None:
        if not is_current(self.state, event):
            known = self.state.tasks.get(event.task)
            if known is None or known.attempt is None or known.attempt.outcome != event.outcome:
                self.record(ev.ResultStale(event.task, event.attempt, event.epoch, event.source, event.outcome))
            return
        left = self._attempts.pop(event.task).task
        task = self._tasks.get(event.task, left)
        event = self._unsettled.judged(event, self.state.tasks[event.task].state is TaskState.RUNNING)
        outcome, delay = self._decide(task, event)
        crashpoint("outcome_decided")
        self.record(msgspec.structs.replace(event, outcome=outcome, retry_in=delay))
        crashpoint("outcome_journaled")
        if delay is None:
            self._tasks.pop(event.task, None)
            self._barred.pop(event.task, None)
            if not outcome.completed and (too_many := self._failures.count(self.state)) is not None:
                self._end(too_many)
        elif event.task in self._tasks and delay > 0:
            self._backlog.put_later(task, delay)
        elif event.task in self._tasks:
            self._backlog.put_first(task)

    def _decide(self, task: Task, event: ev.AttemptFinished) -> tuple[Outcome, float | None]:
        outcome, known = event.outcome, self.state.tasks[task.index]
        if outcome.cause is Cause.REJECTED:
            barred = self._barred.setdefault(task.index, set())
            barred.add(event.source)
            alive = self._lanes.alive(self.state)
            return outcome, None if alive and barred >= alive else 0.0
        memory = None if known.attempt is None else known.attempt.memory
        delay = retry_delay(self._config, outcome, known.failures, memory)
        if delay is None and (told := last_words(self._config, outcome, known)):
            outcome = msgspec.structs.replace(outcome, message=f"{outcome.message}{told}")
        return outcome, delay

    # --- the end before the end

    def _end(self, why: SweepStopped, leaving: Set[str] = frozenset()) -> None:
        """Hand nothing out any more and end what runs, but on sources to leave; `run` raises `why` at last."""
        if not self._ending.begin(why, leaving):
            return
        self.scribe.ending = why
        for source in self._lanes:
            self._cancel(source)
        crashpoint("ended_early")

    def _cancel(self, source: Source) -> None:
        """End what a source runs that is not left; what it can't be told now it is told when it is up again."""
        active = [a for a in self._attempts.values() if a.source == source.name]
        if active and source.name not in self._ending.leaving and self._lanes.in_use(source.name, self.state):
            try:
                source.cancel(active)
            except Unavailable as e:
                self.record(ev.SourceDown(source.name, str(e)))

    def _check_sources(self) -> None:
        """End the sweep when work is left and nothing can ever take it."""
        if self._attempts or self._ending.why is not None:
            return
        reasons = self._lanes.dead(self.state)
        if reasons is not None:
            told = "\n".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
            self._end(NoSourceLeft(f"no source can run the remaining tasks\n{told}"))

    def _signalled(self, signum: int) -> None:
        if self._ending.why is not None:
            self._ending.hurry()
            return
        why = self._interrupt(signum)
        leaving, words = to_leave(self._lanes, why)
        log.warning("%s: ending the running tasks%s; once more ends at once", signal.Signals(signum).name, words)
        self._end(why, leaving)

    def _interrupt(self, signum: int) -> SweepInterrupted:
        return SweepInterrupted.by(signum, leave=self._config.on_interrupt == "detach")

    # --- commands from outside

    def _look_at_spool(self) -> None:
        self._next_look = time.monotonic() + HEARTBEAT
        self._owner.check()
        for command in self._spool.poll():
            if command.command == "cancel":
                self._end(SweepInterrupted("the sweep was cancelled by command"))
                ok, message = True, "the sweep is ending"
            else:
                what = f"unknown command '{command.command}'" if command.command else command.arguments["problem"]
                ok, message = False, what
            self.record(ev.CommandDone(command.id, command.command, ok, message))
            crashpoint("command_answered")
            self._spool.done(command)
