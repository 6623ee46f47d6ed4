"""The engine hands tasks out: who gets which, when, and what it does when sources come, go and refuse."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core.backlog import LOOKAHEAD
from hsm_core.control import send
from hsm_core.exceptions import SweepInterrupted
from hsm_core.strategies import SourceView
from hsm_core.task import Attempt, Cause, Task, TaskState
from tests.unit.fake_source import DONE, FakeSource, Rig, failed, held

# --- who gets which task ---------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 100])
def test_round_robin_over_three_equal_sources(tmp_path: Path, slots: int) -> None:
    with Rig(tmp_path, *(FakeSource(name, slots) for name in "123")) as rig:
        rig.run(30)
        assert rig.dealt == "123" * 10
        assert rig.count(TaskState.COMPLETED) == 30


def test_weighted_keeps_its_ratio_in_every_window(tmp_path: Path) -> None:
    shares = {"a": 2, "b": 4, "c": 8}
    sources = [FakeSource(name, 1000) for name in shares]
    with Rig(tmp_path, *sources, strategy="weighted", weights={n: float(w) for n, w in shares.items()}) as rig:
        rig.run(140)
        dealt = rig.dealt
    assert Counter(dealt) == {name: 10 * share for name, share in shares.items()}
    for start, size in itertools.product(range(0, 100), range(1, 41)):
        window = Counter(dealt[start : start + size])
        assert all(abs(window[name] - size * share / 14) <= 1 for name, share in shares.items())


def test_priority_fills_the_highest_first(tmp_path: Path) -> None:
    sources = [FakeSource(name, 2, held) for name in ("low", "high", "medium")]
    with Rig(tmp_path, *sources, strategy="priority", priorities={"low": 10, "medium": 50, "high": 90}) as rig:
        for last in (5, 7):
            rig.once(ev.AttemptStarted, lambda e: [s.finish(t) for s in sources for t in list(s.active)], task=last)
        rig.run(8)
        dealt = [e.source for e in rig.of(ev.AttemptSubmitted)]
        assert dealt == ["high"] * 2 + ["medium"] * 2 + ["low"] * 2 + ["high"] * 2


def test_least_loaded_fills_evenly(tmp_path: Path) -> None:
    sources = [FakeSource("a", 1, held), FakeSource("b", 3, held)]
    with Rig(tmp_path, *sources, strategy="least_loaded") as rig:
        rig.once(ev.AttemptStarted, lambda e: [s.finish(t) for s in sources for t in list(s.active)], task=3)
        rig.run(4)
        assert rig.dealt == "abbb"


def test_random_is_the_same_again_for_the_same_seed(tmp_path: Path) -> None:
    dealt = []
    for number, seed in enumerate([7, 7, 8]):
        with Rig(tmp_path / str(number), FakeSource("a", 50), FakeSource("b", 50), strategy="random", seed=seed) as rig:
            rig.run(40)
            dealt.append(rig.dealt)
    assert dealt[0] == dealt[1] != dealt[2]
    assert set(dealt[0]) == {"a", "b"}


def test_slots_are_used_up_and_never_exceeded(tmp_path: Path) -> None:
    sources = [FakeSource("a", 3, held), FakeSource("b", 1, held)]
    most: Counter[str] = Counter()

    def watch(event: ev.Event) -> None:
        for source in sources:
            seen = rig.state.sources.get(source.name)
            active = seen.active if seen else 0
            assert len(source.active) <= active <= source.slots
            most[source.name] = max(most[source.name], active)
        if isinstance(event, ev.AttemptStarted):
            next(s for s in sources if s.name == event.source).finish(event.task)

    with Rig(tmp_path, *sources) as rig:
        rig.reactions.append(watch)
        rig.run(50)
        assert most == {"a": 3, "b": 1}


class Raises:
    """Works twice, then raises."""

    def __init__(self) -> None:
        self._calls = 0

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        self._calls += 1
        if self._calls > 2:
            raise ZeroDivisionError("no idea")
        return available_sources[-1]


class Nonsense(Raises):
    """Works twice, then names a source that is not there."""

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> Any:
        self._calls += 1
        return available_sources[-1] if self._calls <= 2 else "moon"


@pytest.mark.parametrize(("strategy", "words"), [(Raises(), "ZeroDivisionError: no idea"), (Nonsense(), "moon")])
def test_a_faulty_strategy_is_named_and_round_robin_goes_on(tmp_path: Path, strategy: Raises, words: str) -> None:
    with Rig(tmp_path, FakeSource("1", 9), FakeSource("2", 9), FakeSource("3", 9), strategy=strategy) as rig:
        rig.run(8)
        assert rig.dealt == "33" + "123123"
        (told,) = rig.of(ev.StrategyFailed)
        assert told.strategy == type(strategy).__name__
        assert words in told.reason
        assert rig.count(TaskState.COMPLETED) == 8


def test_a_strategy_never_sees_a_source_that_rejected_the_task(tmp_path: Path) -> None:
    sources = [FakeSource("a", 2, lambda attempt: failed(Cause.REJECTED)), FakeSource("b", 2)]
    with Rig(tmp_path, *sources, strategy="priority", priorities={"a": 90}) as rig:
        rig.run(1)
        assert rig.dealt == "ab"


# --- tasks come in ---------------------------------------------------------------------------------


def test_tasks_are_taken_as_they_are_needed(tmp_path: Path) -> None:
    source = FakeSource("a", 4, held)
    taken = 0

    def endless() -> Iterator[Task]:
        nonlocal taken
        for task in (Task(i, (), f"key{i}") for i in itertools.count()):
            taken += 1
            yield task

    def watch(event: ev.Event) -> None:
        assert taken - len(source.submitted) <= LOOKAHEAD + source.slots
        if isinstance(event, ev.AttemptStarted):
            source.finish(event.task)

    with Rig(tmp_path, source) as rig:
        rig.reactions.append(watch)
        rig.once(ev.AttemptStarted, lambda e: send(rig.hsm, "cancel"), task=200)
        with pytest.raises(SweepInterrupted):
            rig.run(endless())
        assert rig.count(TaskState.COMPLETED) >= 200
        assert len(rig.of(ev.TaskAdded)) == taken


def test_the_journal_has_an_attempt_on_the_disk_before_its_source_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal synced
        real(fd)
        synced = os.fstat(fd).st_size

    def check(attempts: Sequence[Attempt]) -> None:
        lines = [json.loads(line) for line in rig.journal_path.read_bytes()[:synced].splitlines()]
        intents = [(e["task"], e["attempt"], e["source"]) for e in lines if e["event"] == "attempt_submitted"]
        assert {(a.task.index, a.number, a.source) for a in attempts} <= set(intents)
        checked.update(a.id for a in attempts)

    checked: set[str] = set()
    first = iter([failed(Cause.LOST)])
    sources = [FakeSource("a", 3, lambda attempt: next(first, DONE)), FakeSource("b", 2)]
    with Rig(tmp_path, *sources) as rig:
        monkeypatch.setattr(os, "fsync", fsync)
        for source in sources:
            source.before_submit = check
        rig.run(20)
        assert len(checked) == 21


def test_outcomes_and_the_intents_that_follow_reach_the_disk_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, syncs = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal syncs
        real(fd)
        syncs += 1

    with Rig(tmp_path, FakeSource("a", 4)) as rig:
        rig.run(4)
        monkeypatch.setattr(os, "fsync", fsync)
        rig.run(40)
        # One for each batch of four, and what is left for the end.
        assert 10 <= syncs <= 11


def test_an_outcome_reaches_the_disk_before_the_engine_waits_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal synced
        real(fd)
        synced = os.fstat(fd).st_size

    def look() -> None:
        there = rig.journal_path.read_bytes()[:synced]
        if rig.ended(0) is not None and re.search(rb'"attempt_finished",.*"task":0,', there):
            source.finish(1)
            rig.idle = lambda: None

    source = FakeSource("a", 2, held)
    with Rig(tmp_path, source) as rig:
        monkeypatch.setattr(os, "fsync", fsync)
        rig.idle = look
        rig.once(ev.AttemptStarted, lambda e: source.finish(0), task=1)
        rig.run(2)
        assert rig.ended(1) == DONE


def test_attempts_go_out_in_batches(tmp_path: Path) -> None:
    source = FakeSource("a", 10, held)
    batches: list[int] = []

    def note(attempts: Sequence[Attempt]) -> None:
        batches.append(len(attempts))

    with Rig(tmp_path, source) as rig:
        source.before_submit = note
        rig.once(ev.AttemptStarted, lambda e: [source.finish(t) for t in list(source.active)], task=9)
        rig.run(10)
        assert batches == [10]


def test_many_runs_share_sources_and_journal(tmp_path: Path) -> None:
    source = FakeSource("a", 2)
    with Rig(tmp_path, source) as rig:
        for count in (3, 0, 1, 70):
            rig.run(count)
        assert source.starts == 1
        assert rig.count(TaskState.COMPLETED) == rig.state.planned == 74
        assert [a.task.index for a in source.submitted] == list(range(74))
        assert len(rig.of(ev.SourceStarted)) == 1


class Failing:
    """A listener whose writes fail so."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self._number = number

    def __call__(self, *told: object) -> None:
        self.calls += 1
        raise OSError(self._number, os.strerror(self._number))


def test_a_listener_that_can_not_write_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(errno.EIO)
    with Rig(tmp_path, FakeSource("a"), listeners=[failing]) as rig:
        rig.run(3)
        assert failing.calls == 1
        assert "Failing stops writing: [Errno 5] Input/output error" in caplog.text


def test_a_listener_for_which_the_disk_is_full_is_told_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(errno.ENOSPC)
    with Rig(tmp_path, FakeSource("a"), listeners=[failing]) as rig:
        rig.run(3)
        assert failing.calls == len(rig.events)
        assert caplog.text.count("Failing can't write now: [Errno 28] No space left on device") == 1
