"""Sources whose methods fail, hang, and do what they say they did not: 200 sweeps, each with faults of its own.

Time is virtual: the engine's modules get their clock, queue and threads from a `World`, in which nothing takes
time but waiting. A sweep that fails names its seed; that one alone: pytest -k "test_any_faults[<seed>]".
"""

from __future__ import annotations

import heapq
import itertools
import queue
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core.config import ComputeConfig, HsmConfig, SourceConfig
from hsm_core.control import send
from hsm_core.events import SourceEvent
from hsm_core.exceptions import NoSourceLeft, Rejected, SourceError, SweepInterrupted, SweepStopped, Unavailable
from hsm_core.sources.base import CommandResult, Post, Source, SweepContext
from hsm_core.task import Attempt, Cause, Outcome
from tests.unit.fake_source import DONE, Rig, failed, tasks
from tests.unit.test_engine_laws import Killed, Laws, left_active

SEEDS = 200
ROUNDS = 5_000
"""of the engine's loop, far more than any of these sweeps takes"""
ENDINGS = [DONE] * 12 + [failed(c, c.value) for c in (Cause.ERROR, Cause.LOST, Cause.PREEMPTED, Cause.TIMEOUT)]


class World:
    """Virtual time, the engine's queue, and what is due when."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.live: dict[int, Attempt] = {}
        """the attempt of each task that runs now, wherever that is"""
        self.killed = False
        """whether the launcher is"""
        self._messages: deque[Any] = deque()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._rounds = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Become the time, the queue and the threads of the engine's modules."""
        for module in ("engine", "ending", "lanes", "backlog"):
            patch.setattr(f"hsm_core.{module}.time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr("hsm_core.engine.queue", SimpleNamespace(SimpleQueue=lambda: self, Empty=queue.Empty))
        patch.setattr("hsm_core.lanes.threading", SimpleNamespace(Thread=self._thread))
        patch.setattr("os.fsync", lambda fd: None)

    def after(self, delay: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._numbers), action))

    def spend(self, seconds: float) -> None:
        """Let time pass, as in a call that takes long."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, action = heapq.heappop(self._due)
            action()
        self.now = until

    def put(self, message: object) -> None:
        self._messages.append(message)

    def get(self, timeout: float) -> object:
        self._rounds += 1
        if self.killed:
            raise Killed
        assert self._rounds < ROUNDS, "the sweep stands still"
        until = self.now + timeout
        while not self._messages:
            if not self._due or self._due[0][0] > until:
                self.now = until
                raise queue.Empty
            self.now, _, action = heapq.heappop(self._due)
            action()
        return self._messages.popleft()

    def get_nowait(self) -> object:
        if not self._messages:
            raise queue.Empty
        return self._messages.popleft()

    def forget(self) -> None:
        """The launcher is gone, and with it all that it had not heard yet."""
        self.killed = False
        self._messages.clear()

    def _thread(self, target: Callable[..., None], args: tuple[Any, ...], **names: object) -> Any:
        return SimpleNamespace(start=lambda: self.after(self.chance.choice([0.0, 0.5, 5.0]), lambda: target(*args)))


class Place(Source):
    """A source as it should be, whose tasks take virtual time and outlive the launcher."""

    type = "place"

    def __init__(self, name: str, slots: int, world: World) -> None:
        super().__init__(name, SourceConfig("place"), slots)
        self._world = world
        self._records: dict[str, Outcome] = {}
        self._running: dict[str, Attempt] = {}

    def start(self, sweep: SweepContext, post: Post) -> None:
        self.post = post

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            assert attempt.task.index not in self._world.live, "no two attempts of a task live"
            assert attempt.id not in self._records, "no attempt is run twice"
            self._world.live[attempt.task.index] = self._running[attempt.id] = attempt
            pause, time = self._world.chance.uniform(0.0, 2.0), self._world.chance.uniform(0.0, 20.0)
            outcome = self._world.chance.choice(ENDINGS)
            self._world.after(pause, partial(self._begin, attempt))
            self._world.after(pause + time, partial(self._end, attempt, outcome))

    def attach(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.id not in self._running:
                self._tell(attempt, self._records.get(attempt.id) or failed(Cause.LOST, "there is no such attempt"))

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.id in self._running:
                cancelled = failed(Cause.CANCELLED, "ended before it was done")
                self._world.after(self._world.chance.uniform(0.0, 3.0), partial(self._end, attempt, cancelled))

    def lose_all(self, why: str) -> None:
        """The place burns down."""
        for attempt in list(self._running.values()):
            self._end(attempt, failed(Cause.LOST, why))

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """There are no files."""

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        return CommandResult(0, "", "")

    def stop(self, timeout: float = 10.0) -> None:
        self.post = lambda event: None
        self.lose_all("stopped")

    def _begin(self, attempt: Attempt) -> None:
        if attempt.id in self._running:
            self.post(ev.AttemptStarted(attempt.task.index, attempt.number, attempt.epoch, self.name, host=self.name))

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        if self._running.pop(attempt.id, None) is not None:
            del self._world.live[attempt.task.index]
            self._records[attempt.id] = outcome
            self._tell(attempt, outcome)

    def _tell(self, attempt: Attempt, outcome: Outcome) -> None:
        self.post(ev.AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, self.name, outcome))


class Faulty(Source):
    """Another source, with faults at this rate around every method and every answer."""

    type = "faulty"

    def __init__(self, inner: Place, world: World, rate: float) -> None:
        super().__init__(inner.name, inner.config, inner.slots)
        self._inner = inner
        self._world = world
        self._rate = rate
        self._refused: set[str] = set()
        """attempts it said it could not take, and did not"""

    def _fault(self, *faults: str) -> str | None:
        return self._world.chance.choice(faults) if self._world.chance.random() < self._rate else None

    def start(self, sweep: SweepContext, post: Post) -> None:
        self._post = post
        self._inner.start(sweep, self._answer)
        fault = self._fault("slow", "slow", "broken", "flapping", "flapping")
        if fault == "slow":
            self._world.spend(30.0)
        elif fault == "broken":
            self._inner.stop()
            raise SourceError(f"{self.name}: no route to host")
        elif fault == "flapping":
            for moment in (1.0, 7.0, 20.0):
                self._world.after(moment, lambda: self._down("flapping"))
        elif self._fault("gone"):
            self._world.after(self._world.chance.uniform(0.0, 60.0), self._go)

    def _down(self, why: str) -> None:
        self._post(ev.SourceDown(self.name, why))
        self._world.after(self._world.chance.uniform(0.1, 10.0), lambda: self._post(ev.SourceUp(self.name)))

    def _go(self) -> None:
        self._post(ev.SourceDown(self.name, "gone for good", final=True))
        self._inner.lose_all("gone for good")

    def _answer(self, event: SourceEvent) -> None:
        fault = self._fault("late", "twice", "much later again")
        if fault == "late":
            self._world.after(self._world.chance.uniform(0.0, 15.0), lambda: self._post(event))
            return
        self._post(event)
        if fault == "twice":
            self._post(event)
        elif fault == "much later again":
            self._world.after(30.0, lambda: self._post(event))

    def submit(self, attempts: Sequence[Attempt]) -> None:
        fault = self._fault("rejected", "unavailable", "slow", "done but timed out")
        if fault == "rejected":
            raise Rejected(f"{self.name}: no such partition")
        if fault == "unavailable":
            self._refused.update(attempt.id for attempt in attempts)
        elif fault == "slow":
            self._world.spend(10.0)
            self._inner.submit(attempts)
        else:
            self._inner.submit(attempts)
        if fault in ("unavailable", "done but timed out"):
            self._world.spend(self._world.chance.choice([0.0, 10.0]))
            self._world.after(self._world.chance.uniform(0.1, 30.0), lambda: self._post(ev.SourceUp(self.name)))
            raise Unavailable(f"{self.name}: socket timed out")

    def attach(self, attempts: Sequence[Attempt]) -> None:
        unknown = [attempt for attempt in attempts if attempt.id not in self._refused]
        if unknown and self._fault("unavailable"):
            self._world.after(self._world.chance.uniform(0.1, 30.0), lambda: self._post(ev.SourceUp(self.name)))
            raise Unavailable(f"{self.name}: socket timed out")
        self._inner.attach(attempts)

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        fault = self._fault("slow", "twice", "done but timed out")
        if fault == "slow":
            self._world.spend(2.0)
        self._inner.cancel(attempts)
        if fault == "twice":
            self._inner.cancel(attempts)
        elif fault == "done but timed out":
            raise Unavailable(f"{self.name}: socket timed out")

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """There are no files."""

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        if self._fault("unavailable"):
            raise Unavailable(f"{self.name}: socket timed out")
        return self._inner.run_command(command, timeout)

    def stop(self, timeout: float = 10.0) -> None:
        self._post = lambda event: None
        self._inner.stop(timeout)


def launch(directory: Path, world: World, places: Sequence[Place], laws: Laws, rate: float, count: int) -> bool:
    """Be a launcher until the sweep has ended, or somebody kills it; whether it has ended."""
    config = HsmConfig(compute=ComputeConfig(retry_attempts=1, retry_delay=world.chance.choice([0.0, 8.0])), grace=5.0)
    sources = [Faulty(place, world, rate) for place in places]
    jobs = tasks(count)
    with laws.watch(Rig(directory, *sources, config=config)) as rig:
        rig.engine.adopt(left_active(rig, jobs))
        stopped: SweepStopped | None = None
        try:
            rig.run([job for job in jobs if job.index not in laws.ended])
        except Killed:
            world.forget()
            return False
        except SweepStopped as e:
            stopped = e
        for source in sources:
            source.stop()
        world.spend(1_000.0)
        assert not world.live
        if stopped is None:
            assert set(laws.ended) == set(range(count))
        elif isinstance(stopped, NoSourceLeft):
            assert all(rig.state.sources[place.name].disabled for place in places)
        else:
            assert isinstance(stopped, SweepInterrupted)
    return True


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_faults(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, laws = World(seed), Laws()
    world.install(monkeypatch)
    places = [Place(name, world.chance.randint(1, 4), world) for name in "abc"[: world.chance.randint(1, 3)]]
    rate = world.chance.choice([0.05, 0.2, 0.5])
    fate = world.chance.choice(["nothing", "nothing", "killed", "cancelled"])

    if fate == "killed":
        world.after(world.chance.uniform(0.0, 60.0), lambda: setattr(world, "killed", True))
    elif fate == "cancelled":
        world.after(world.chance.uniform(0.0, 60.0), lambda: send(tmp_path / ".hsm", "cancel"))
    while not launch(tmp_path, world, places, laws, rate, count=12):
        pass
