"""What comes home when: batches, failures at once, what runs in intervals, all of it at the end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core import sync as sync_module
from hsm_core.config import ComputeConfig, HsmConfig, ResultCollectionConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.state import SweepState, apply
from hsm_core.sync import ResultSync
from hsm_core.task import Attempt, Cause, Outcome
from hsm_core.testing import wait_until
from tests.unit.fake_source import DONE, FakeSource, failed

RECORD = {"record": ".hsm/results/x.json"}


class Far(FakeSource):
    """Notes what is collected; `problems`: what it raises, call by call."""

    shares_files = False

    def __init__(self, name: str = "far") -> None:
        super().__init__(name)
        self.collected: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.problems: list[SourceError] = []
        self.gate = threading.Event()
        self.gate.set()

    def collect(self, attempts: Sequence[Attempt]) -> None:
        assert self.gate.wait(60)
        if self.problems:
            raise self.problems.pop(0)
        self.collected.put(sorted(attempt.id for attempt in attempts))


class Stage:
    """A result sync that hears of tasks of the source far; `posted` is what it answers."""

    def __init__(self, far: Far, **how: object) -> None:
        self.far = far
        self.state = SweepState()
        self.posted: queue.SimpleQueue[ev.Event] = queue.SimpleQueue()
        interval = how.pop("interval", 1e6)
        collection = replace(ResultCollectionConfig(), **how)  # type: ignore[arg-type]
        compute = ComputeConfig(result_collection_interval=float(str(interval)))
        config = HsmConfig(compute=compute, result_collection=collection)
        self.sync = ResultSync(config, [far, FakeSource("near")], self.state, self.posted.put)
        self.hear(ev.SourceStarted("far", "far", 8))

    def hear(self, *events: ev.Event) -> None:
        for event in events:
            apply(self.state, event, 1.0)
            self.sync(event, self.state, 1.0)

    def begin(self, task: int, number: int = 1, source: str = "far") -> None:
        known = task in self.state.tasks
        self.hear(*([] if known else [ev.TaskAdded(task, f"k{task}", ())]))
        self.hear(ev.AttemptSubmitted(task, number, 1, source), ev.AttemptStarted(task, number, 1, source))

    def end(self, task: int, number: int = 1, outcome: Outcome = DONE, retry: float | None = None) -> None:
        told = Outcome(outcome.status, outcome.cause, **RECORD)  # type: ignore[arg-type]
        self.hear(ev.AttemptFinished(task, number, 1, "far", told, retry))

    def run(self, *tasks: int) -> None:
        for task in tasks:
            self.begin(task)
            self.end(task)

    def brought(self) -> list[str]:
        return self.far.collected.get(timeout=60)


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "FIRST_PAUSE", 0.01)


def test_as_many_as_a_batch_come_together(far: Far) -> None:
    stage = Stage(far, batch_size=3)
    stage.run(0, 1)
    stage.begin(5)
    assert far.collected.empty()
    stage.run(2)
    assert stage.brought() == ["task_001.1.1", "task_002.1.1", "task_003.1.1"]
    event = stage.posted.get(timeout=60)
    assert event == ev.ResultsCollected("far", ((0, 1, 1), (1, 1, 1), (2, 1, 1)))
    stage.hear(event)
    assert [task.attempt is not None and task.attempt.collected for task in stage.state.tasks.values()] == [
        True, True, False, True,
    ]  # fmt: skip


def test_a_failed_task_comes_at_once(far: Far) -> None:
    stage = Stage(far)
    stage.run(0)
    stage.begin(1)
    stage.end(1, outcome=failed(Cause.ERROR))
    assert stage.brought() == ["task_001.1.1", "task_002.1.1"]


def test_a_failed_task_waits_where_that_is_wanted(far: Far) -> None:
    stage = Stage(far, immediate_error_collection=False)
    stage.begin(0)
    stage.end(0, outcome=failed(Cause.ERROR))
    assert far.collected.empty()
    assert stage.sync.busy()
    assert stage.brought() == ["task_001.1.1"]


@pytest.mark.parametrize("continuous", [True, False])
def test_what_runs_comes_in_intervals(far: Far, continuous: bool) -> None:
    stage = Stage(far, interval=0.05, continuous_sync=continuous)
    stage.begin(0)
    stage.run(1)
    assert stage.brought() == (["task_001.1.1", "task_002.1.1"] if continuous else ["task_002.1.1"])
    if continuous:
        assert stage.brought() == ["task_001.1.1"]
    stage.end(0)
    wait_until(lambda: far.collected.get(timeout=60) == ["task_001.1.1"], "the end of the first task")


def test_the_end_waits_for_what_is_left(far: Far) -> None:
    stage = Stage(far)
    stage.run(0, 1)
    far.gate.clear()
    assert stage.sync.busy()
    assert stage.sync.busy()
    far.gate.set()
    assert stage.brought() == ["task_001.1.1", "task_002.1.1"]
    wait_until(lambda: not stage.sync.busy(), "the transfer to be noted")
    assert [(source.name, came, left) for source, came, left in stage.sync.tally()] == [("far", 2, 0)]


def test_a_transfer_that_fails_is_tried_again_and_told_once(far: Far) -> None:
    far.problems = [Unavailable("no route")] * 3
    stage = Stage(far, batch_size=1)
    stage.run(0)
    assert stage.brought() == ["task_001.1.1"]
    told = [stage.posted.get(timeout=60) for _ in range(2)]
    assert isinstance(told[0], ev.Note)
    assert told[0].message == "results can't be brought home now: no route"
    assert isinstance(told[1], ev.ResultsCollected)
    assert stage.posted.empty()


def test_a_host_that_stays_away_is_not_waited_for_for_ever(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "PATIENCE", 0.05)
    far.problems = [Unavailable("no route")] * 1000
    stage = Stage(far, batch_size=1)
    stage.run(0)
    wait_until(lambda: not stage.sync.busy(), "the sync to give up")
    assert [(came, left) for _, came, left in stage.sync.tally()] == [(0, 1)]


def test_an_attempt_that_another_follows_is_not_brought_any_more(far: Far) -> None:
    stage = Stage(far, immediate_error_collection=False)
    stage.begin(0)
    stage.end(0, outcome=failed(Cause.LOST), retry=0.0)
    stage.begin(0, number=2, source="near")
    assert not stage.sync.busy()
    assert far.collected.empty()


def test_a_later_launcher_brings_what_is_not_home(far: Far) -> None:
    before = Stage(far)
    before.run(0, 1)
    before.hear(ev.ResultsCollected("far", ((0, 1, 1),)))
    before.sync.close()
    after = ResultSync(HsmConfig(), [far], before.state, before.posted.put)
    assert after.busy(), "its source is starting"
    after(ev.SourceStarted("far", "far", 8), before.state, 2.0)
    assert after.busy()
    assert far.collected.get(timeout=60) == ["task_002.1.1"]


def test_what_lies_on_a_source_that_can_not_be_used_is_not_waited_for(far: Far) -> None:
    before = Stage(far)
    before.run(0)
    before.sync.close()
    after = ResultSync(HsmConfig(), [far], before.state, before.posted.put)
    after(ev.SourceDisabled("far", "its host key changed"), before.state, 2.0)
    assert not after.busy()
    assert [(came, left) for _, came, left in after.tally()] == [(0, 1)]


def test_sources_that_share_our_files_need_none_of_it(tmp_path: Path) -> None:
    threads = threading.active_count()
    stage = ResultSync(HsmConfig(), [FakeSource("near")], SweepState(), lambda event: None)
    assert threading.active_count() == threads
    assert not stage.busy()
