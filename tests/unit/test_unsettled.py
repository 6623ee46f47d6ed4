"""A submission that is not answered may have been taken: nobody else gets its tasks before the source has told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.control import send
from hsm_core.exceptions import SweepInterrupted, Unavailable
from hsm_core.task import Attempt, Cause
from tests.unit.fake_source import FakeSource, Rig, failed, held


class Mute(FakeSource):
    """Takes its first batch, but can't say so; it can be asked what became of it once it is `reachable`."""

    def __init__(self, name: str, slots: int) -> None:
        super().__init__(name, slots, held)
        self.reachable = False

    def submit(self, attempts: Sequence[Attempt]) -> None:
        super().submit(attempts)
        if not self.reachable:
            raise Unavailable("sbatch: socket timed out")

    def attach(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        self.attached.extend(attempts)

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        super().cancel(attempts)

    def _check(self) -> None:
        if not self.reachable:
            raise Unavailable("scontrol: socket timed out")

    def reach(self) -> None:
        self.reachable = True
        self.up()


def test_what_was_taken_without_an_answer_is_not_run_elsewhere(tmp_path: Path) -> None:
    a, b = Mute("a", 2), FakeSource("b", 1)
    with Rig(tmp_path, a, b) as rig:
        rig.once(ev.AttemptFinished, lambda e: a.reach(), task=5)
        rig.once(ev.SourceUp, lambda e: [a.finish(task) for task in list(a.active)])
        rig.run(6)
        first = a.submitted[:2]
        assert a.attached == first
        assert [e.attempt for e in rig.of(ev.AttemptFinished)] == [1] * 6
        assert all(task.outcome and task.outcome.completed for task in rig.state.tasks.values())


def test_its_end_counts_also_when_it_comes_before_the_question_can_be_asked(tmp_path: Path) -> None:
    a = Mute("a", 1)
    with Rig(tmp_path, a) as rig:
        rig.once(ev.SourceDown, lambda e: a.finish(0))
        rig.run(1)
        assert len(rig.of(ev.AttemptSubmitted)) == 1


def test_one_that_had_begun_and_is_lost_is_lost(tmp_path: Path) -> None:
    a = Mute("a", 1)
    with Rig(tmp_path, a) as rig:
        rig.once(ev.SourceDown, lambda e: a.reach(), lambda e: a.finish(0, failed(Cause.LOST)))
        rig.once(ev.AttemptStarted, lambda e: a.finish(0), attempt=2)
        rig.run(1)
        assert rig.state.tasks[0].failures == {"lost": 1}


def test_a_source_that_goes_for_good_before_it_has_told_has_lost_them(tmp_path: Path) -> None:
    a, b = Mute("a", 1), FakeSource("b", 1)

    def gone(event: ev.SourceDown) -> None:
        a.active.clear()
        a.post(ev.SourceDown("a", "no such host any more", final=True))

    with Rig(tmp_path, a, b) as rig:
        rig.once(ev.SourceDown, gone)
        rig.run(2)
        assert rig.dealt == "abb"


def test_what_could_not_be_cancelled_is_cancelled_when_its_source_is_up(tmp_path: Path) -> None:
    a = Mute("a", 1)
    with Rig(tmp_path, a) as rig:
        rig.once(ev.SourceDown, lambda e: send(rig.hsm, "cancel"))
        rig.once(ev.CommandDone, lambda e: a.reach())
        with pytest.raises(SweepInterrupted):
            rig.run(1)
        assert a.cancelled == a.submitted
        (end,) = rig.of(ev.AttemptFinished)
        assert end.outcome.cause is Cause.CANCELLED
