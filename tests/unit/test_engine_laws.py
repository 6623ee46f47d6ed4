"""What holds in every sweep, however attempts end, results come late or twice, and sources go and come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core import events as ev
from hsm_core.config import ComputeConfig, HsmConfig
from hsm_core.control import send
from hsm_core.exceptions import NoSourceLeft, Rejected, SweepStopped, Unavailable
from hsm_core.task import Attempt, Cause, Outcome, Task, TaskState
from tests.unit.fake_source import DONE, FakeSource, Rig, failed, held, tasks

MOST_TASKS = 15
OUTCOMES = [DONE, *(failed(cause, cause.value) for cause in Cause)]


@dataclass(frozen=True)
class End:
    """One of the running attempts ends; its result is posted once or twice."""

    which: int
    outcome: Outcome
    twice: bool


@dataclass(frozen=True)
class Stray:
    """A result nobody waits for: of an earlier attempt, of another launcher, of an attempt that never was."""

    task: int
    ahead: int
    epoch: int
    outcome: Outcome


@dataclass(frozen=True)
class Down:
    source: int
    final: bool


@dataclass(frozen=True)
class Up:
    source: int


@dataclass(frozen=True)
class Refuse:
    """The next submission to the source is refused."""

    source: int
    for_ever: bool


@dataclass(frozen=True)
class Cancel:
    """Somebody cancels the sweep."""


Action = End | Stray | Down | Up | Refuse | Cancel

sources = st.integers(0, 2)
outcomes = st.sampled_from([DONE, *OUTCOMES])
ends = st.builds(End, which=st.integers(0, 8), outcome=outcomes, twice=st.booleans())
strays = st.builds(
    Stray,
    task=st.integers(0, MOST_TASKS),
    ahead=st.sampled_from([-2, -1, 0, 100]),
    epoch=st.integers(0, 3),
    outcome=outcomes,
)
downs = st.builds(Down, source=sources, final=st.booleans())
others = st.one_of(st.builds(Up, sources), st.builds(Refuse, sources, st.booleans()))
actions = st.lists(st.one_of(ends, ends, ends, ends, strays, downs, others), max_size=60)
configs = st.builds(
    HsmConfig,
    compute=st.builds(ComputeConfig, retry_attempts=st.integers(0, 2)),
    fail_fast=st.sampled_from([None, None, None, 2, 0.5]),
)
layouts = st.lists(st.integers(1, 3), min_size=1, max_size=3)
strategies = st.sampled_from(["round_robin", "least_loaded", "weighted", "priority"])


class Killed(Exception):
    """Ends the engine as a kill would: at any moment, with nothing said."""


class Play:
    """Acts out a script, one action in every round of the engine's loop; then `last` happens, round by round."""

    def __init__(self, rig: Rig, fakes: Sequence[FakeSource], script: Sequence[Action]) -> None:
        self.rig = rig
        self.fakes = fakes
        self.last: Callable[[], None] = self.wind_up
        self._script: Iterator[Action] = iter(script)
        self._rounds = 0
        """since the script is over"""
        rig.idle = self._step

    def _step(self) -> None:
        if len(self.rig.of(ev.SourceStarted)) < len(self.fakes):
            return
        action = next(self._script, None)
        if action is None:
            self._rounds += 1
            assert self._rounds < 500, "the sweep stands still"
            self.last()
        elif isinstance(action, End):
            self._end(action)
        elif isinstance(action, Stray):
            self._stray(action)
        elif isinstance(action, Cancel):
            send(self.rig.hsm, "cancel")
        else:
            fake = self.fakes[action.source % len(self.fakes)]
            if isinstance(action, Refuse):
                fake.refusals.append(Rejected("never") if action.for_ever else Unavailable("not now"))
            elif self.rig.state.sources[fake.name].disabled is None:
                if isinstance(action, Up):
                    fake.up()
                else:
                    fake.down("no route to host", action.final)

    def _running(self) -> list[tuple[FakeSource, int]]:
        return [(fake, task) for fake in self.fakes for task in fake.active]

    def _end(self, action: End) -> None:
        running = self._running()
        if running:
            fake, task = running[action.which % len(running)]
            event = fake.finish(task, action.outcome)
            if action.twice:
                fake.post(event)

    def _stray(self, action: Stray) -> None:
        known = self.rig.state.tasks.get(action.task)
        current = (0, 0) if known is None or known.attempt is None else (known.attempt.number, known.attempt.epoch)
        number = current[0] + action.ahead
        if (number, action.epoch) != current:
            fake = self.fakes[0]
            fake.post(ev.AttemptStarted(action.task, number, action.epoch, fake.name, host="elsewhere"))
            fake.post(ev.AttemptFinished(action.task, number, action.epoch, fake.name, action.outcome))

    def wind_up(self) -> None:
        """All that runs completes, and what is down comes back."""
        for fake in self.fakes:
            seen = self.rig.state.sources[fake.name]
            if seen.down is not None and seen.disabled is None:
                fake.up()
        for fake, task in self._running():
            fake.finish(task)

    def kill(self) -> None:
        raise Killed


class Laws:
    """Watches every event of a sweep, over all its launchers."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}
        self.running: set[int] = set()
        self.ended: dict[int, Outcome] = {}

    def watch(self, rig: Rig) -> Rig:
        rig.reactions.append(lambda event: self._check(event, rig))
        return rig

    def _check(self, event: ev.Event, rig: Rig) -> None:
        state = rig.state
        if isinstance(event, ev.AttemptSubmitted):
            assert event.task not in self.ended, "nothing is started that has ended"
            assert event.task not in self.running, "no two attempts of a task live"
            assert event.attempt == self.last.get(event.task, (0, 0))[0] + 1, "numbers only grow"
            assert event.epoch >= self.last.get(event.task, (0, 0))[1]
            self.last[event.task] = (event.attempt, event.epoch)
            self.running.add(event.task)
        if isinstance(event, ev.AttemptFinished):
            assert self.last[event.task] == (event.attempt, event.epoch), "only the current attempt counts"
            self.running.remove(event.task)
            if event.retry_in is None:
                assert event.task not in self.ended, "a task ends once"
                self.ended[event.task] = event.outcome
        assert Counter(state.counts) == Counter(task.state for task in state.tasks.values())
        assert state.counts[TaskState.PENDING] + state.active + state.ended == len(state.tasks)
        assert state.active == len(self.running) == sum(source.active for source in state.sources.values())
        assert state.ended == len(self.ended)
        assert {i for i, task in state.tasks.items() if task.state.terminal} == set(self.ended)


def run(rig: Rig, jobs: list[Task]) -> SweepStopped | None:
    try:
        rig.run(jobs)
    except SweepStopped as e:
        return e
    return None


def check_end(play: Play, laws: Laws, jobs: list[Task], stopped: SweepStopped | None) -> None:
    rig = play.rig
    assert laws.running == set()
    assert {e.task for e in rig.of(ev.AttemptFinished) if e.outcome.completed} <= set(laws.ended), "none is lost"
    if stopped is None:
        assert set(laws.ended) == {task.index for task in jobs}
    if isinstance(stopped, NoSourceLeft):
        assert all(rig.state.sources[fake.name].disabled for fake in play.fakes)


@pytest.fixture(autouse=True, scope="module")
def no_pauses() -> Iterator[None]:
    """The loop looks for commands, and so goes on with the script, in every round; nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsm_core.engine.HEARTBEAT", 0.0)
        patch.setattr("os.fsync", lambda fd: None)
        yield


@given(
    layout=layouts,
    count=st.integers(1, MOST_TASKS),
    script=st.one_of(actions, st.tuples(actions, actions).map(lambda both: [*both[0], Cancel(), *both[1]])),
    config=configs,
    strategy=strategies,
)
@settings(deadline=None, max_examples=400)
def test_any_sweep(
    layout: list[int],
    count: int,
    script: list[Action],
    config: HsmConfig,
    strategy: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    fakes = [FakeSource(name, slots, held) for name, slots in zip("abc", layout, strict=False)]
    laws, jobs = Laws(), tasks(count)
    with laws.watch(Rig(tmp_path_factory.mktemp("sweep"), *fakes, config=config, strategy=strategy)) as rig:
        play = Play(rig, fakes, script)
        check_end(play, laws, jobs, run(rig, jobs))


@given(layout=layouts, count=st.integers(1, MOST_TASKS), before=actions, after=actions, gone=st.booleans())
@settings(deadline=None, max_examples=200)
def test_any_sweep_whose_launcher_is_killed(
    layout: list[int],
    count: int,
    before: list[Action],
    after: list[Action],
    gone: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory: Path = tmp_path_factory.mktemp("sweep")
    laws, jobs = Laws(), tasks(count)
    fakes = [FakeSource(name, slots, held) for name, slots in zip("abc", layout, strict=False)]
    with laws.watch(Rig(directory, *fakes)) as rig:
        play = Play(rig, fakes, before)
        play.last = play.kill
        try:
            stopped = run(rig, jobs)
        except Killed:
            pass
        else:
            check_end(play, laws, jobs, stopped)
    # Its sources are there again, with or without the first; what ran goes on.
    again = [FakeSource(fake.name, fake.slots, held) for fake in fakes]
    again = again[1:] if gone and len(again) > 1 else again
    with laws.watch(Rig(directory, *again)) as rig:
        rig.engine.adopt(left_active(rig, jobs))
        rest = [job for job in jobs if job.index not in laws.ended]
        play = Play(rig, again, after)
        check_end(play, laws, jobs, run(rig, rest))


def left_active(rig: Rig, jobs: list[Task]) -> dict[str, list[Attempt]]:
    left: dict[str, list[Attempt]] = {}
    for task in rig.state.tasks.values():
        last = task.attempt
        if task.state.active and last is not None:
            left.setdefault(last.source, []).append(Attempt(jobs[task.index], last.number, last.epoch, last.source))
    return left
