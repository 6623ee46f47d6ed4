"""Sources out of reach: their tasks wait at first, then others get them, and what comes late counts for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hsm_core import events as ev
from hsm_core.config import ComputeConfig, HsmConfig
from hsm_core.task import Cause, TaskState
from tests.unit.fake_source import FakeSource, Rig, held

SOON = HsmConfig(compute=ComputeConfig(unreachable_timeout=0.01))


def test_a_task_of_a_source_out_of_reach_goes_to_another(tmp_path: Path) -> None:
    far, near = FakeSource("far", 1, held), FakeSource("near", 1, held)
    with Rig(tmp_path, far, near, config=SOON) as rig:
        rig.once(ev.AttemptStarted, lambda e: far.down("no route to host"), source="far")
        rig.once(ev.AttemptStarted, lambda e: near.finish(e.task), source="near")
        rig.once(ev.AttemptFinished, lambda e: None, source="far")
        rig.once(ev.AttemptStarted, lambda e: near.finish(e.task), source="near", attempt=2)
        rig.run(2)
        (lost,) = (e for e in rig.of(ev.AttemptFinished) if e.source == "far")
        assert (lost.outcome.cause, lost.retry_in) == (Cause.LOST, 0.0)
        assert lost.outcome.message == "far has been out of reach for 0.01 s"
        assert rig.count(TaskState.COMPLETED) == 2
        assert [e.source for e in rig.of(ev.AttemptSubmitted) if e.task == lost.task] == ["far", "near"]


def test_what_was_given_to_another_ends_where_it_ran_once_that_is_back(tmp_path: Path) -> None:
    """Its result, which may have come before it heard of that, is stale, and so is the end that it was brought to."""
    far, near = FakeSource("far", 2, held), FakeSource("near", 2, held)
    with Rig(tmp_path, far, near, config=SOON, strategy="priority", priorities={"far": 100}) as rig:

        def come_back(event: ev.Event) -> None:
            far.finish(0)
            far.up()

        rig.once(ev.AttemptStarted, lambda e: far.down("no route to host"), source="far", task=1)
        rig.once(ev.AttemptStarted, come_back, source="near", task=1)
        rig.once(ev.SourceUp, lambda e: [near.finish(task) for task in (0, 1)])
        rig.run(2)
        assert sorted(attempt.id for attempt in far.cancelled) == ["task_001.1.1", "task_002.1.1"]
        stale = [(e.task, e.attempt, e.source, e.outcome.completed) for e in rig.of(ev.ResultStale)]
        assert sorted(stale) == [(0, 1, "far", True), (1, 1, "far", False)]
        assert rig.count(TaskState.COMPLETED) == 2
        assert all(e.attempt == 2 for e in rig.of(ev.AttemptFinished) if e.outcome.completed)


def test_without_another_source_a_task_waits_for_its_own(tmp_path: Path) -> None:
    far, broken = FakeSource("far", 1, held), FakeSource("near", 1, held)
    with Rig(tmp_path, far, broken, config=SOON) as rig:
        looks: list[None] = []

        def idle() -> None:
            looks.append(None)
            if len(looks) == 3:  # several rounds after it was overdue
                far.up()

        rig.once(ev.AttemptStarted, lambda e: broken.down("gone", final=True), lambda e: far.down("no route"))
        rig.once(ev.SourceDown, lambda e: setattr(rig, "idle", idle), source="far")
        rig.once(ev.SourceUp, lambda e: far.finish(0))
        rig.run(1)
        assert [e.attempt for e in rig.of(ev.AttemptFinished)] == [1]
        assert rig.count(TaskState.COMPLETED) == 1


def test_a_source_that_is_back_in_time_keeps_its_tasks(tmp_path: Path) -> None:
    far, near = FakeSource("far", 1, held), FakeSource("near", 1)
    with Rig(tmp_path, far, near, config=replace(SOON, compute=ComputeConfig(unreachable_timeout=600.0))) as rig:
        rig.once(ev.AttemptStarted, lambda e: far.down("no route"), lambda e: far.up(), source="far")
        rig.once(ev.SourceUp, lambda e: far.finish(0))
        rig.run(2)
        assert [e.attempt for e in rig.of(ev.AttemptFinished)] == [1, 1]
        assert far.cancelled == []
