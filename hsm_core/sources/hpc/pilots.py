"""Tasks on a cluster behind a scheduler, in pilots: a few long jobs, each with an agent that takes tasks as they come.

Attempts wait here until a pilot has room. Pilots are called for as attempts come, up to as many as are allowed; each is
a job of its own (`PilotJobs`), and met (`PilotAgent`) once that has started. What ran in one that is over is settled
when its job is known to have ended.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from hsm_core.config import SourceConfig
from hsm_core.events import AttemptFinished, AttemptStarted, Note, SourceDown, SourceEvent, SourceUp
from hsm_core.exceptions import SourceError
from hsm_core.records import settle
from hsm_core.sources.base import CommandResult, Post, Source, SweepContext
from hsm_core.sources.hpc.pilot_agent import PilotAgent
from hsm_core.sources.hpc.pilot_jobs import PilotJobs
from hsm_core.sources.hpc.resources import of_source
from hsm_core.task import Attempt, Cause, Outcome, attempt_id

FAILURES = 3
"""pilots in a row that may be of no use, until the source is given up"""
IDLE = 300.0
"""seconds that a pilot may have nothing to do before its nodes are given back"""
GOODBYE = 5.0
"""seconds in which a pilot that was told to end leaves by itself, before its job is cancelled"""


@dataclass
class Pilot:
    job: Attempt
    agent: PilotAgent | None = None
    """None: its job has not started yet"""
    ready: bool = False
    """whether it takes tasks now"""
    met: bool = False
    """whether it ever did"""
    trouble: str = ""
    """why it is of no use"""
    idle_since: float | None = None
    """when it was first found to have no task"""


@dataclass
class _Sought:
    """An attempt of an earlier launcher."""

    attempt: Attempt
    pilots: set[str]
    """those that may have it, and have not denied it"""


class PilotSource(Source):
    type = "hpc"
    outlives_launcher = True

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._most = min(config.pilots, slots)
        self._each = math.ceil(slots / self._most)
        self._jobs = PilotJobs(name, config, self._most, self._each)
        self._changed = threading.Condition(threading.RLock())
        """guards all that follows"""
        self._pilots: dict[str, Pilot] = {}
        """by the ids of their jobs"""
        self._waiting: list[Attempt] = []
        """attempts that no pilot has"""
        self._carriers: dict[str, Pilot] = {}
        """which has an attempt that was given to one"""
        self._sought: dict[str, _Sought] = {}
        self._cancelled: set[str] = set()
        self._failures = 0
        """pilots in a row that were of no use"""
        self._news: queue.SimpleQueue[SourceEvent | None] = queue.SimpleQueue()
        """what jobs had to say and is not heard yet: they say it with a lock of theirs held; None: no more comes"""
        self._hearing: threading.Thread | None = None
        self._alarm: threading.Timer | None = None
        """which goes off when a pilot has been idle for long"""
        self._down = self._given_up = self._stopping = False

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        return config.pilots * of_source(config).cpus

    # --- the engine's side

    def start(self, sweep: SweepContext, post: Post) -> None:
        self._sweep, self._post = sweep, post
        self._jobs.start(sweep, self._news.put)
        self._hearing = threading.Thread(target=self._hear_all, name=f"hsm-pilots-{self.name}", daemon=True)
        self._hearing.start()
        left = self._jobs.left() if sweep.epoch > 1 else ()
        with self._changed:
            self._pilots.update((job.id, Pilot(job)) for job in left)
        self._jobs.attach(left)

    def submit(self, attempts: Sequence[Attempt]) -> None:
        with self._changed:
            self._waiting += attempts
            self._deal()

    def attach(self, attempts: Sequence[Attempt]) -> None:
        with self._changed:
            waiting = {attempt.id for attempt in self._waiting}
            asked = [a for a in attempts if a.id not in waiting and a.id not in self._carriers]
            # One that has not started yet has never had a task.
            started = [name for name, p in self._pilots.items() if p.agent or self._jobs.has_started(p.job)]
            self._sought.update((attempt.id, _Sought(attempt, set(started))) for attempt in asked)
            for pilot in self._pilots.values():
                self._ask(pilot)
            self._settle_lost()

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        ids = {attempt.id for attempt in attempts}
        with self._changed:
            dropped = [attempt for attempt in self._waiting if attempt.id in ids]
            self._waiting = [attempt for attempt in self._waiting if attempt.id not in ids]
            self._cancelled |= ids
            for attempt in dropped:
                self._finish(attempt, Outcome.failed(Cause.CANCELLED, "ended before a pilot had room for it"))
            for pilot in self._pilots.values():
                if pilot.agent is not None:
                    pilot.agent.cancel([a for a in attempts if self._may_have(pilot, a.id)])

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """The output directories are in the sweep directory from the start."""

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        return self._jobs.run_command(command, timeout)

    def describe(self) -> Mapping[str, Any]:
        return {**self._jobs.describe(), "pilots": self._most, "slots of each": self._each}

    def stop(self, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        agents = self._part()
        self._together([partial(agent.stop, timeout / 2) for agent in agents])
        with self._changed:
            met = [pilot for pilot in self._pilots.values() if pilot.agent is not None]
            patience = min(GOODBYE, max(0.0, deadline - time.monotonic()))
            self._changed.wait_for(lambda: not any(pilot.job.id in self._pilots for pilot in met), patience)
        self._jobs.stop(max(0.0, deadline - time.monotonic()))
        self._hear_no_more()

    def leave(self, timeout: float = 10.0) -> None:
        self._together([agent.leave for agent in self._part()])
        self._jobs.leave(timeout)
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        self._news.put(None)
        if self._hearing is not None:
            self._hearing.join()

    def _part(self) -> Sequence[PilotAgent]:
        """Begin the end; returns the agents there are."""
        with self._changed:
            self._stopping = True
            self._waiting = []
            if self._alarm is not None:
                self._alarm.cancel()
            return [pilot.agent for pilot in self._pilots.values() if pilot.agent is not None]

    def _together(self, actions: Sequence[Any]) -> None:
        threads = [threading.Thread(target=action, name=f"hsm-part-{self.name}", daemon=True) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # --- dealing; the caller has the lock

    def _deal(self) -> None:
        """Give what waits to pilots with room, those with the most first, and call for more pilots if need be."""
        while self._waiting:
            rooms = [(p.agent.slots - p.agent.active, p) for p in self._pilots.values() if p.ready and p.agent]
            room, pilot = max(rooms, key=lambda found: found[0], default=(0, None))
            if pilot is None or pilot.agent is None or room <= 0:
                break
            attempt = self._waiting.pop(0)
            self._carriers[attempt.id] = pilot
            pilot.agent.submit([attempt])
        self._call()
        self._note_idle()

    def _note_idle(self) -> None:
        """Take note of pilots with nothing to do, and have them looked at later."""
        for pilot in self._pilots.values():
            idle = pilot.ready and pilot.agent is not None and not pilot.agent.active
            pilot.idle_since = (pilot.idle_since or time.monotonic()) if idle else None
        since = [pilot.idle_since for pilot in self._pilots.values() if pilot.idle_since is not None]
        if since and self._alarm is None and not self._stopping:
            self._alarm = threading.Timer(max(0.0, min(since) + IDLE - time.monotonic()), self._release)
            self._alarm.daemon = True
            self._alarm.start()

    def _release(self) -> None:
        """Let go of pilots that have had nothing to do for long."""
        with self._changed:
            self._alarm = None
            late = time.monotonic() - IDLE
            idle = [p for p in self._pilots.values() if p.idle_since is not None and p.idle_since <= late]
            for pilot in idle:
                pilot.ready = False
            self._note_idle()
        self._together([pilot.agent.stop for pilot in idle if pilot.agent is not None])

    def _call(self) -> None:
        if self._given_up or self._stopping:
            return
        wanted = min(self._most, math.ceil((len(self._waiting) + len(self._carriers) + len(self._sought)) / self._each))
        missing = wanted - len(self._pilots) if self._waiting else 0
        if missing > 0:
            jobs = self._jobs.new(missing)
            self._pilots.update((job.id, Pilot(job)) for job in jobs)
            self._jobs.submit(jobs)

    def _ask(self, pilot: Pilot) -> None:
        """Ask a pilot for the attempts that are sought, if it is there to be asked."""
        if pilot.ready and pilot.agent is not None:
            sought = [s.attempt for s in self._sought.values() if pilot.job.id in s.pilots]
            if sought:
                pilot.agent.attach(sought)

    def _may_have(self, pilot: Pilot, attempt_id: str) -> bool:
        sought = self._sought.get(attempt_id)
        return self._carriers.get(attempt_id) is pilot or (sought is not None and pilot.job.id in sought.pilots)

    def _settle_lost(self) -> None:
        """Settle what is sought and no pilot has."""
        for sought in [s for s in self._sought.values() if not s.pilots]:
            event = settle(self._sweep.records, sought.attempt, "no pilot has it")
            self._finish(sought.attempt, event.outcome)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        self._carriers.pop(attempt.id, None)
        self._sought.pop(attempt.id, None)
        self._post(AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, self.name, outcome))

    def _give_up(self, why: str) -> None:
        """Take no task any more: no pilot would be of use."""
        if not self._given_up:
            self._given_up = True
            self._post(SourceDown(self.name, why, final=True))
            waiting, self._waiting = self._waiting, []
            for attempt in waiting:
                self._finish(attempt, Outcome.failed(Cause.LOST, why))

    # --- what is heard of jobs, in a thread of its own

    def _hear_all(self) -> None:
        while (event := self._news.get()) is not None:
            if isinstance(event, AttemptStarted):
                with self._changed:
                    pilot = self._pilots[attempt_id(event.task, event.attempt, event.epoch)]
                meet = threading.Thread(target=self._meet, args=(pilot,), name=f"hsm-meet-{self.name}", daemon=True)
                meet.start()
            elif isinstance(event, AttemptFinished):
                self._over(attempt_id(event.task, event.attempt, event.epoch), event.outcome)
            else:
                self._post(event)

    def _meet(self, pilot: Pilot) -> None:
        """Come to the agent of a pilot whose job has started."""
        address = partial(self._jobs.address, pilot.job)
        agent = PilotAgent(self.name, self.config, self._each, pilot.job.id, address)
        with self._changed:
            if self._stopping or pilot.job.id not in self._pilots:
                return
            pilot.agent = agent
        try:
            agent.start(self._sweep, partial(self._hear_agent, pilot))
        except SourceError as e:
            with self._changed:
                if self._stopping:
                    return
                if agent.useless:
                    self._give_up(str(e))
                pilot.trouble = str(e).removeprefix(f"{self.name}: ")
                self._post(Note("WARNING", f"a pilot can't be used: {pilot.trouble}", source=self.name))
            self._jobs.cancel([pilot.job])
            return
        with self._changed:
            self._take_tasks(pilot)

    def _take_tasks(self, pilot: Pilot) -> None:
        """A pilot can be reached; the caller has the lock."""
        pilot.ready = pilot.met = True
        self._up()
        self._ask(pilot)
        self._deal()

    def _up(self) -> None:
        if self._down:
            self._down = False
            self._post(SourceUp(self.name))

    def _over(self, job: str, outcome: Outcome) -> None:
        """A pilot's job has ended."""
        with self._changed:
            pilot = self._pilots.pop(job)
            agent = pilot.agent
            pilot.ready = False
        words = pilot.trouble or outcome.message.removeprefix(f"{self.name}: ") or "its agent had nothing to do"
        if agent is not None:
            agent.gone(f"its pilot has ended: {words}")
        with self._changed:
            for sought in self._sought.values():
                sought.pilots.discard(job)
            self._settle_lost()
            self._failures = 0 if pilot.met else self._failures + 1
            if not self._stopping and (outcome.cause is Cause.REJECTED or self._failures >= FAILURES):
                self._give_up(f"{self.name}: its pilots are of no use: {words}")
            if self._down and not any(other.agent for other in self._pilots.values()):
                self._up()  # the one that could not be reached is gone, and there may be others
            self._deal()
            self._changed.notify_all()

    # --- what is heard of agents, in threads of theirs

    def _hear_agent(self, pilot: Pilot, event: SourceEvent) -> None:
        with self._changed:
            if isinstance(event, AttemptStarted):
                self._found(pilot, attempt_id(event.task, event.attempt, event.epoch))
                self._post(event)
            elif isinstance(event, AttemptFinished):
                self._ended(pilot, event)
            elif isinstance(event, SourceDown):
                self._lose(pilot, event)
            elif isinstance(event, SourceUp):
                self._take_tasks(pilot)
            else:
                self._post(event)

    def _found(self, pilot: Pilot, attempt: str) -> None:
        """A pilot has an attempt that may have been sought."""
        sought = self._sought.pop(attempt, None)
        if sought is not None:
            self._carriers[attempt] = pilot
            for other in self._pilots.values():
                if other is not pilot and other.agent is not None:
                    other.agent.give_up([sought.attempt])

    def _ended(self, pilot: Pilot, event: AttemptFinished) -> None:
        name = attempt_id(event.task, event.attempt, event.epoch)
        sought, outcome = self._sought.get(name), event.outcome
        if sought is not None and outcome.record is None and outcome.cause is Cause.LOST:
            sought.pilots.discard(pilot.job.id)
            self._settle_lost()
            return
        self._found(pilot, name)
        self._carriers.pop(name, None)
        if outcome.cause is Cause.CANCELLED and name not in self._cancelled and not self._stopping:
            pilot.ready = False
            words = f"its pilot was told to end: {outcome.message}"
            event = msgspec.structs.replace(
                event, outcome=msgspec.structs.replace(outcome, cause=Cause.LOST, message=words)
            )
        self._cancelled.discard(name)
        self._post(event)
        self._deal()

    def _lose(self, pilot: Pilot, event: SourceDown) -> None:
        pilot.ready = False
        if self._stopping:
            return
        if not event.final:
            if not self._down and not any(other.ready for other in self._pilots.values()):
                self._down = True
                self._post(event)
            return
        if pilot.agent is not None and pilot.agent.useless:
            self._give_up(event.reason)
        self._jobs.cancel([pilot.job])  # what of it still runs, nobody hears of any more
