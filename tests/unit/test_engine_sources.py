"""Sources that start late or never, go down, come back and refuse: the sweep goes on while any can take its tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core import lanes as lanes_module
from hsm_core.control import send
from hsm_core.exceptions import NoSourceLeft, Rejected, SourceError, Unavailable
from hsm_core.lanes import Lane, Lanes
from hsm_core.strategies import RoundRobin
from hsm_core.task import Attempt, Cause, Outcome, TaskState
from tests.unit.fake_source import DONE, FakeSource, Rig, failed, held


def test_the_first_deal_waits_for_slower_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "SETTLE", 60.0)
    gate = threading.Event()
    with Rig(tmp_path, FakeSource("1", 9, gate=gate), FakeSource("2", 9)) as rig:
        rig.once(ev.SourceStarted, lambda e: gate.set(), source="2")
        rig.run(6)
        assert rig.dealt == "121212"


def test_a_source_that_takes_too_long_gets_its_share_once_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "SETTLE", 0.0)
    gate = threading.Event()
    slow, quick = FakeSource("1", 1, gate=gate), FakeSource("2", 1, held)
    with Rig(tmp_path, slow, quick) as rig:
        rig.once(ev.AttemptStarted, lambda e: gate.set(), source="2")
        rig.once(ev.AttemptFinished, lambda e: quick.finish(0), source="1")
        rig.run(2)
        assert rig.dealt == "21"


def test_only_a_source_that_is_ready_lets_the_first_deal_come(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("broken", "a", "b")
    lanes = Lanes({name: Lane(FakeSource(name), 1.0, 50) for name in names}, RoundRobin())
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lanes.unusable("broken")
    assert lanes.settles_at() == float("inf")
    now = 103.0
    lanes.ready("a")
    now = 103.5
    assert lanes.settles_at() == 103.0 + lanes_module.SETTLE
    lanes.ready("b")
    assert lanes.settles_at() == 0.0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SourceError("1: there is no such host"), "1: there is no such host"),
        (OSError(8, "Exec format error", "/opt/python"), "[Errno 8] Exec format error: '/opt/python'"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_source_that_can_not_start_leaves_its_tasks_to_the_others(
    tmp_path: Path, error: Exception, words: str
) -> None:
    with Rig(tmp_path, FakeSource("1", broken=error), FakeSource("2")) as rig:
        rig.run(3)
        assert rig.dealt == "222"
        (told,) = rig.of(ev.SourceDisabled)
        assert told.source == "1"
        assert words in told.reason


def test_no_source_can_start(tmp_path: Path) -> None:
    why = "the app can't be imported"
    broken = [FakeSource(name, broken=SourceError(f"{name}: {why}")) for name in ("a", "b")]
    with Rig(tmp_path, *broken, FakeSource("c", broken=SourceError("c: no route to host"))) as rig:
        with pytest.raises(NoSourceLeft) as caught:
            rig.run(5)
        assert sorted(str(caught.value).splitlines()[1:]) == [f"a, b: {why}", "c: no route to host"]
        assert rig.count(TaskState.PENDING) == 5
        with pytest.raises(NoSourceLeft):
            rig.run(1)


def test_without_tasks_no_source_is_missed(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a", broken=SourceError("no"))) as rig:
        rig.run(0)
        assert rig.dealt == ""


def test_a_source_that_is_down_gets_nothing_until_it_is_up(tmp_path: Path) -> None:
    a, b = FakeSource("a", 1, held), FakeSource("b")

    def down(event: ev.AttemptStarted) -> None:
        a.down("no route to host")
        assert a.active, "what runs there is unknown, not lost"

    with Rig(tmp_path, a, b) as rig:
        rig.once(ev.AttemptStarted, down, source="a")
        rig.once(ev.AttemptFinished, lambda e: a.finish(0), lambda e: a.up(), task=5)
        rig.once(ev.SourceUp, lambda e: setattr(a, "ending", lambda attempt: DONE))
        rig.run(8)
        assert rig.dealt == "abbbbb" + "ab"
        assert rig.count(TaskState.COMPLETED) == 8


def test_a_source_that_goes_down_for_good_hands_its_tasks_to_the_others(tmp_path: Path) -> None:
    a, b = FakeSource("a", 2, held), FakeSource("b")
    with Rig(tmp_path, a, b) as rig:
        rig.once(ev.AttemptStarted, lambda e: a.down("its agent ended three times", final=True), task=2)
        rig.run(5)
        assert [s.source for s in rig.of(ev.AttemptSubmitted) if s.attempt == 2] == ["b", "b"]
        assert {e.reason for e in rig.of(ev.SourceDisabled)} == {"its agent ended three times"}
        assert all(task.state is TaskState.COMPLETED for task in rig.state.tasks.values())
        assert rig.state.sources["a"].active == 0


def test_the_last_source_goes_down_for_good(tmp_path: Path) -> None:
    a = FakeSource("a", 2, held)
    with Rig(tmp_path, a) as rig:
        rig.once(ev.AttemptStarted, lambda e: a.down("its agent ended", final=True), task=1)
        with pytest.raises(NoSourceLeft, match="a: its agent ended"):
            rig.run(3)
        assert (rig.count(TaskState.PENDING), rig.state.active) == (3, 0)


def test_a_source_that_goes_down_for_good_while_it_is_reported_ready_is_not_used(tmp_path: Path) -> None:
    class Fleeting(FakeSource):
        def start(self, sweep: Any, post: Any) -> None:
            super().start(sweep, post)
            self.down("its agent ended at once", final=True)

    with Rig(tmp_path, Fleeting("a", 2), FakeSource("b")) as rig:
        rig.run(3)
        assert rig.dealt == "bbb"
        assert rig.state.sources["a"].disabled == "its agent ended at once"


def test_rejected_by_one_source_a_task_goes_to_the_other(tmp_path: Path) -> None:
    a, b = FakeSource("a", 4, refusals=[Rejected("partition gpu does not exist")]), FakeSource("b", 4)
    with Rig(tmp_path, a, b, strategy="priority", priorities={"a": 90}) as rig:
        rig.run(10)
        first = [e.outcome for e in rig.of(ev.AttemptFinished) if e.attempt == 1 and not e.outcome.completed]
        assert [(o.cause, o.message) for o in first] == [(Cause.REJECTED, "partition gpu does not exist")] * 4
        assert {a.task.index for a in b.submitted if a.number == 2} == {0, 1, 2, 3}
        assert [attempt.task.index for attempt in a.submitted] == [8, 9]
        assert rig.count(TaskState.COMPLETED) == 10


def reject(why: str) -> Callable[[Attempt], Outcome | None]:
    return lambda attempt: failed(Cause.REJECTED, why) if attempt.task.index == 0 else DONE


def test_rejected_by_all_sources_a_task_fails_and_the_others_go_on(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a", 2, reject("too big")), FakeSource("b", 2, reject("no gpu"))) as rig:
        rig.run(5)
        outcome = rig.ended(0)
        assert outcome is not None
        assert (outcome.cause, outcome.message) == (Cause.REJECTED, "no gpu")
        assert [e.source for e in rig.of(ev.AttemptSubmitted) if e.task == 0] == ["a", "b"]
        assert rig.count(TaskState.COMPLETED) == 4


@pytest.mark.parametrize("gone", ["before", "after"])
def test_rejected_by_the_only_source_left_a_task_fails(tmp_path: Path, gone: str) -> None:
    a, b = FakeSource("a", 1, reject("too big")), FakeSource("b", 1, held)
    with Rig(tmp_path, a, b) as rig:
        at_rejection = gone == "before"
        rig.once(ev.AttemptStarted if at_rejection else ev.AttemptFinished, lambda e: b.down("gone", final=True))
        rig.run(3)
        outcome = rig.ended(0)
        assert outcome is not None
        assert outcome.message == "too big"
        assert rig.count(TaskState.COMPLETED) == 2


def test_a_submission_that_fails_for_now_costs_a_task_nothing(tmp_path: Path) -> None:
    a = FakeSource("a", 2, refusals=[Unavailable("sbatch: timed out")] * 5)

    def up_again(event: ev.Event) -> None:
        if isinstance(event, ev.SourceDown):
            a.up()

    with Rig(tmp_path, a) as rig:
        rig.reactions.append(up_again)
        rig.run(4)
        assert rig.count(TaskState.COMPLETED) == 4
        assert len(rig.of(ev.SourceDown)) == 5
        unsent = [e for e in rig.of(ev.AttemptFinished) if not e.outcome.completed]
        assert {e.outcome.message for e in unsent} == {"not submitted: sbatch: timed out"}
        assert all(e.retry_in == 0.0 for e in unsent)
        assert not any(task.lost_on for task in rig.state.tasks.values())


def test_tasks_wait_while_every_source_is_down(tmp_path: Path) -> None:
    a = FakeSource("a", 1, refusals=[Unavailable("no route to host")])
    with Rig(tmp_path, a) as rig:
        rig.once(ev.SourceDown, lambda e: send(rig.hsm, "look"))
        rig.once(ev.CommandDone, lambda e: a.up())
        rig.run(2)
        assert len(rig.of(ev.SourceDown)) == 1
        assert rig.count(TaskState.COMPLETED) == 2
