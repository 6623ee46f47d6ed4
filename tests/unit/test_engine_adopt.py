"""A resumed engine takes over what an earlier launcher left: attached, settled by record, or lost; never doubled."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core.config import ComputeConfig, HsmConfig
from hsm_core.control import send
from hsm_core.exceptions import SourceError, SweepInterrupted
from hsm_core.strategies import SourceView
from hsm_core.task import Attempt, Cause, Task, TaskState
from tests.unit.fake_source import DONE, FakeSource, Rig, failed, held, tasks


def leave(directory: Path, active: dict[int, str], count: int) -> dict[str, list[Attempt]]:
    """A sweep of some tasks whose launcher died while these were active on these sources; returns their attempts."""
    left: dict[str, list[Attempt]] = {}
    with Rig(directory) as rig:
        for source in sorted(set(active.values())):
            rig.engine.record(ev.SourceStarted(source, "fake", 100))
        for task in tasks(count):
            rig.engine.record(ev.TaskAdded(task.index, task.key, task.overrides))
            if task.index in active:
                source = active[task.index]
                rig.engine.record(ev.AttemptSubmitted(task.index, 1, 1, source))
                left.setdefault(source, []).append(Attempt(task, 1, 1, source))
    return left


def write_record(rig: Rig, task: int, **fields: Any) -> None:
    numbers = {"format": 1, "task": task, "attempt": 1, "epoch": 1}
    path = rig.records / f"task_{task + 1:03d}.1.1.json"
    path.write_text(json.dumps({**numbers, "status": "completed", **fields}))


def attempts(rig: Rig) -> list[tuple[int, int, int, str]]:
    return [(e.task, e.attempt, e.epoch, e.source) for e in rig.of(ev.AttemptSubmitted)]


def test_attempts_of_a_source_that_is_there_are_attached_once_it_is_ready(tmp_path: Path) -> None:
    left = leave(tmp_path, {0: "a", 2: "a"}, 4)
    gate = threading.Event()
    a, b = FakeSource("a", 4, gate=gate), FakeSource("b", 1)

    def ready(event: ev.SourceStarted) -> None:
        assert a.attached == []

    with Rig(tmp_path, a, b) as rig:
        rig.once(ev.SourceStarted, lambda e: gate.set(), source="b")
        rig.once(ev.SourceStarted, ready, source="a")
        rig.once(ev.AttemptFinished, lambda e: [a.finish(0), a.finish(2, failed(Cause.ERROR))])
        rig.engine.adopt(left)
        rig.run(tasks(4))
        assert a.attached == left["a"]
        assert sorted(task for task, *_ in attempts(rig)) == [1, 3]
        assert [rig.state.tasks[i].state.value for i in range(4)] == ["completed", "completed", "failed", "completed"]


def test_an_attached_attempt_that_is_lost_is_followed_by_the_next_one(tmp_path: Path) -> None:
    left = leave(tmp_path, {0: "a"}, 1)
    a = FakeSource("a", 1)
    with Rig(tmp_path, a) as rig:
        rig.once(ev.SourceStarted, lambda e: a.down("the line is cut"))
        rig.once(ev.SourceDown, lambda e: a.up(), lambda e: a.finish(0, failed(Cause.LOST)))
        rig.engine.adopt(left)
        rig.run(tasks(1))
        assert attempts(rig) == [(0, 2, 2, "a")]
        assert rig.ended(0) == DONE


def test_attempts_of_a_source_that_is_not_there_are_settled_by_record_or_lost(tmp_path: Path) -> None:
    left = leave(tmp_path, {0: "gone", 1: "gone", 2: "gone", 3: "gone"}, 4)
    with Rig(tmp_path, FakeSource("a", 4)) as rig:
        write_record(rig, 0, return_value={"value": 0.5, "exact": True})
        write_record(rig, 1, status="failed", cause="error", message="ValueError: no")
        (rig.records / "task_003.1.1.json").write_text("half a reco")
        rig.engine.adopt(left)
        rig.run(tasks(4))
        first = {e.task: e.outcome for e in rig.of(ev.AttemptFinished) if e.attempt == 1}
        assert first[0].return_value == 0.5
        assert first[1].message == "ValueError: no"
        assert "invalid result" in first[2].message
        assert first[3].message == "its source gone is not part of the resumed sweep"
        assert [first[i].cause for i in (2, 3)] == [Cause.LOST] * 2
        assert sorted(attempts(rig)) == [(2, 2, 2, "a"), (3, 2, 2, "a")]
        assert [rig.state.tasks[i].state.value for i in range(4)] == ["completed", "failed", "completed", "completed"]


def test_attempts_of_a_source_that_can_not_start_are_settled_too(tmp_path: Path) -> None:
    left = leave(tmp_path, {0: "a", 1: "a"}, 2)
    with Rig(tmp_path, FakeSource("a", broken=SourceError("a: no route to host")), FakeSource("b", 1)) as rig:
        write_record(rig, 0)
        rig.engine.adopt(left)
        rig.run(tasks(2))
        assert attempts(rig) == [(1, 2, 2, "b")]
        assert rig.count(TaskState.COMPLETED) == 2


def test_what_is_not_to_be_run_is_taken_over_and_not_run_again(tmp_path: Path) -> None:
    left = leave(tmp_path, {0: "gone", 1: "a", 2: "gone"}, 4)
    a = FakeSource("a", 4)
    with Rig(tmp_path, a) as rig:
        write_record(rig, 2)
        rig.once(ev.AttemptFinished, lambda e: a.finish(1, failed(Cause.LOST)), task=3)
        rig.engine.adopt(left)
        rig.run(tasks(1, first=3))
        assert attempts(rig) == [(3, 1, 2, "a")]
        assert [rig.state.tasks[i].state.value for i in range(4)] == ["pending", "pending", "completed", "completed"]


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_no_task_is_doubled_however_late_it_comes(tmp_path: Path, delay: float) -> None:
    count = 200
    left = leave(tmp_path, {i: "gone" if i % 2 else "a" for i in range(0, count, 7)}, count)
    config = HsmConfig(compute=ComputeConfig(retry_attempts=5, retry_delay=delay))
    a = FakeSource("a", 40, lambda attempt: failed(Cause.ERROR) if attempt.number == 2 else DONE)
    with Rig(tmp_path, a, FakeSource("b", 1), config=config) as rig:
        for index in range(7, count, 28):
            write_record(rig, index, status="failed", cause="error")
        rig.once(ev.AttemptStarted, lambda e: [a.finish(t, failed(Cause.LOST)) for t in list(a.active)], task=150)
        rig.engine.adopt(left)
        rig.run(tasks(count))
        assert rig.count(TaskState.COMPLETED) == count
        ended = [e.task for e in rig.of(ev.AttemptFinished) if e.retry_in is None]
        assert sorted(ended) == list(range(count))


def test_a_task_that_is_run_again_is_the_one_that_was_given(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Picky:
        def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
            seen.append(task.requires_gpu)
            return available_sources[0]

    left = leave(tmp_path, {0: "gone"}, 1)
    with Rig(tmp_path, FakeSource("a", 1), strategy=Picky()) as rig:
        rig.engine.adopt(left)
        rig.run([Task(0, ("x=0",), "key0", requires_gpu=True)])
        assert seen == [True]


@pytest.mark.parametrize("ready", ["in time", "never"])
def test_an_interrupt_before_a_source_is_ready_cancels_what_it_takes_over(tmp_path: Path, ready: str) -> None:
    left = leave(tmp_path, {0: "slow"}, 2)
    gate = threading.Event()
    slow = FakeSource("slow", 1, gate=gate)
    with Rig(tmp_path, slow, FakeSource("b", 1, held), config=HsmConfig(grace=-5.0 if ready == "never" else 60)) as rig:
        rig.once(ev.SourceStarted, lambda e: send(rig.hsm, "cancel"), source="b")
        if ready == "in time":
            rig.once(ev.CommandDone, lambda e: gate.set())
        rig.engine.adopt(left)
        with pytest.raises(SweepInterrupted):
            rig.run(tasks(2))
        assert slow.cancelled == (left["slow"] if ready == "in time" else [])
        assert rig.state.tasks[0].state is (TaskState.PENDING if ready == "in time" else TaskState.SUBMITTED)
        assert rig.state.epoch == 2
    gate.set()
