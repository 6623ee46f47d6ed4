"""How attempts, tasks and the sweep end: retries, late results, fail_fast, signals, commands, a newer launcher."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from hsm_core import events as ev
from hsm_core.config import ComputeConfig, HsmConfig, OomRetry, RetryConfig
from hsm_core.control import send
from hsm_core.exceptions import FailFast, Superseded, SweepInterrupted
from hsm_core.fail_fast import FailureLimit
from hsm_core.owner import Owner
from hsm_core.state import SweepState, apply
from hsm_core.task import Attempt, Cause, Outcome, TaskState
from tests.unit.fake_source import DONE, FakeSource, Rig, failed, held

ERROR = failed(Cause.ERROR, "ValueError: no")


def ending(*outcomes: Outcome) -> Callable[[Attempt], Outcome | None]:
    """Attempt 1 of a task ends with the first of these, and so on; further ones complete."""
    return lambda attempt: dict(enumerate(outcomes, start=1)).get(attempt.number, DONE)


def cancels(rig: Rig) -> list[int]:
    return [e.task for e in rig.of(ev.AttemptFinished) if e.outcome.cause is Cause.CANCELLED]


# --- retries ---------------------------------------------------------------------------------------


def test_errors_are_retried_with_growing_delays_and_then_fail(tmp_path: Path) -> None:
    config = HsmConfig(compute=ComputeConfig(retry_attempts=3, retry_delay=0.004, exponential_backoff=True))
    ended: list[float] = []
    begun: list[float] = []

    def watch(event: ev.Event) -> None:
        if isinstance(event, ev.AttemptFinished):
            ended.append(time.monotonic())
        if isinstance(event, ev.AttemptSubmitted):
            begun.append(time.monotonic())

    with Rig(tmp_path, FakeSource("a", 1, ending(*[ERROR] * 9)), config=config) as rig:
        rig.reactions.append(watch)
        rig.run(1)
        assert [e.retry_in for e in rig.of(ev.AttemptFinished)] == [0.004, 0.008, 0.016, None]
        waited = [second - first for first, second in zip(ended[:3], begun[1:], strict=True)]
        assert all(seconds >= delay for seconds, delay in zip(waited, [0.004, 0.008, 0.016], strict=True))
        assert rig.ended(0) == ERROR


def test_what_a_scheduler_gave_too_little_of_is_asked_for_twice(tmp_path: Path) -> None:
    """It is no limit of the task's own, and a failure for another cause does not forget it."""
    config = HsmConfig(retry=RetryConfig(oom=OomRetry(2, "x2")))
    short = [failed(Cause.OOM, given=100.0), failed(Cause.LOST), failed(Cause.OOM, given=200.0)]
    source = FakeSource("a", 1, ending(*short))
    with Rig(tmp_path, source, config=config) as rig:
        rig.run(1)
        assert rig.ended(0) == DONE
        asked = [None, 200.0, 200.0, 400.0]
        assert [(e.memory, e.needs) for e in rig.of(ev.AttemptSubmitted)] == [(None, needs) for needs in asked]
        assert [attempt.needs for attempt in source.submitted] == asked


def test_a_task_that_waits_for_its_retry_keeps_no_slot(tmp_path: Path) -> None:
    config = HsmConfig(compute=ComputeConfig(retry_attempts=1, retry_delay=3000.0))
    with Rig(tmp_path, FakeSource("a", 1, lambda a: ERROR if a.task.index == 0 else DONE), config=config) as rig:
        rig.once(ev.AttemptFinished, lambda e: send(rig.hsm, "cancel"), task=3)
        with pytest.raises(SweepInterrupted):
            rig.run(4)
        assert [e.task for e in rig.of(ev.AttemptSubmitted)] == [0, 1, 2, 3]
        assert (rig.count(TaskState.COMPLETED), rig.count(TaskState.PENDING)) == (3, 1)


def test_a_task_that_is_lost_three_times_fails_with_its_hosts(tmp_path: Path) -> None:
    lost = [failed(Cause.LOST, f"worker {n} is gone", host=f"node{n}") for n in (1, 2)]
    last = failed(Cause.LOST, "its agent is gone")
    with Rig(tmp_path, *(FakeSource(n, 1, ending(*lost, last)) for n in ("a", "b", "c"))) as rig:
        rig.run(1)
        outcome = rig.ended(0)
        assert outcome is not None
        assert outcome.cause is Cause.LOST
        assert outcome.message.startswith("its agent is gone; ")
        assert "3 workers" in outcome.message
        assert outcome.message.endswith("node1 (a), node2 (b), c.host (c)")
        assert rig.dealt == "abc"


def test_lost_twice_is_no_failure(tmp_path: Path) -> None:
    lost = failed(Cause.LOST, "its agent is gone")
    with Rig(tmp_path, FakeSource("a", 2, ending(lost, lost))) as rig:
        rig.run(5)
        assert rig.count(TaskState.COMPLETED) == 5
        assert len(rig.of(ev.AttemptSubmitted)) == 15


def test_preempted_is_made_up_for_without_end(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a", 1, ending(*[failed(Cause.PREEMPTED)] * 50))) as rig:
        rig.run(1)
        assert rig.count(TaskState.COMPLETED) == 1
        assert [e.attempt for e in rig.of(ev.AttemptSubmitted)] == list(range(1, 52))


@pytest.mark.parametrize("cause", [Cause.ERROR, Cause.OOM, Cause.TIMEOUT])
def test_what_is_not_retried_fails_at_once(tmp_path: Path, cause: Cause) -> None:
    with Rig(tmp_path, FakeSource("a", 1, ending(failed(cause)))) as rig:
        rig.run(2)
        assert [e.task for e in rig.of(ev.AttemptSubmitted)] == [0, 1]
        assert rig.count(TaskState.FAILED) == 2


# --- results that come late, twice or never were asked for -----------------------------------------


def test_late_results_are_told_and_never_committed(tmp_path: Path) -> None:
    source = FakeSource("a", 1, held)
    late = replace(DONE, return_value="late")
    strays = [
        ev.AttemptFinished(0, 1, 1, "a", late),  # an older attempt
        ev.AttemptFinished(0, 2, 0, "a", late),  # an older launcher
        ev.AttemptFinished(0, 7, 1, "a", late),  # one that never was
        ev.AttemptFinished(9, 1, 1, "a", late),  # a task that never was
    ]

    def again(event: ev.AttemptStarted) -> None:
        for stray in strays:
            source.post(stray)
        source.post(ev.AttemptStarted(0, 1, 1, "a", host="elsewhere"))
        source.finish(0, replace(DONE, return_value="right"))

    with Rig(tmp_path, source) as rig:
        rig.once(ev.AttemptStarted, lambda e: source.finish(0, failed(Cause.LOST)), attempt=1)
        rig.once(ev.AttemptStarted, again, attempt=2)
        rig.run(1)
        outcome = rig.ended(0)
        assert outcome is not None
        assert outcome.return_value == "right"
        stale = [(e.task, e.attempt, e.epoch) for e in rig.of(ev.ResultStale)]
        assert stale == [(e.task, e.attempt, e.epoch) for e in strays]
        assert rig.state.stale == 4
        assert [e.host for e in rig.of(ev.AttemptStarted)] == ["a.host", "a.host"]


def test_the_same_result_twice_counts_once(tmp_path: Path) -> None:
    source = FakeSource("a", 2, held)
    with Rig(tmp_path, source) as rig:
        rig.once(ev.AttemptStarted, lambda e: [source.post(source.finish(0)), source.finish(1)], task=1)
        rig.run(2)
        assert len(rig.of(ev.AttemptFinished)) == rig.count(TaskState.COMPLETED) == 2
        assert rig.state.sources["a"].completed == 2
        assert rig.of(ev.ResultStale) == []


def test_another_result_of_an_ended_task_is_stale(tmp_path: Path) -> None:
    source = FakeSource("a", 2, held)

    def twice(event: ev.AttemptStarted) -> None:
        source.post(replace(source.finish(0), outcome=ERROR))
        source.finish(1)

    with Rig(tmp_path, source) as rig:
        rig.once(ev.AttemptStarted, twice, task=1)
        rig.run(2)
        assert rig.count(TaskState.COMPLETED) == 2
        assert [e.outcome for e in rig.of(ev.ResultStale)] == [ERROR]


# --- fail_fast -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "allowed"), [(1, 1), (3, 3), (0.25, 2), (0.26, 3)])
def test_fail_fast_ends_the_sweep(tmp_path: Path, limit: float, allowed: int) -> None:
    def end(attempt: Attempt) -> Outcome | None:
        return None if attempt.task.index == 0 else ERROR

    source = FakeSource("a", 2, end)
    with Rig(tmp_path, source, config=HsmConfig(fail_fast=limit)) as rig:
        with pytest.raises(FailFast, match=f"{allowed} of 8 tasks failed, as many as fail_fast={limit:g} allows"):
            rig.run(8)
        assert rig.count(TaskState.FAILED) == allowed
        assert cancels(rig) == [0]
        assert (rig.count(TaskState.PENDING), rig.state.active) == (8 - allowed, 0)
        with pytest.raises(FailFast):
            rig.run(1)


def test_failures_that_are_made_up_for_do_not_count(tmp_path: Path) -> None:
    config = HsmConfig(fail_fast=1, compute=ComputeConfig(retry_attempts=1))
    with Rig(tmp_path, FakeSource("a", 1, ending(ERROR)), config=config) as rig:
        rig.run(4)
        assert rig.count(TaskState.COMPLETED) == 4


@pytest.mark.parametrize(("limit", "allowed"), [(2, 2), (0.25, 2)])
def test_failures_from_before_a_resume_do_not_count(tmp_path: Path, limit: float, allowed: int) -> None:
    with Rig(tmp_path, FakeSource("a", 1, ending(*[ERROR] * 5))) as rig:
        rig.run(5)
    with Rig(tmp_path, FakeSource("a", 1, ending(*[ERROR] * 3)), config=HsmConfig(fail_fast=limit)) as rig:
        words = f"{allowed} of 8 tasks failed since the sweep was resumed, as many as fail_fast={limit:g} allows"
        with pytest.raises(FailFast, match=words):
            rig.run(3)


def test_a_fraction_of_tasks_that_come_one_by_one(tmp_path: Path) -> None:
    """The first failure is not the half of all: nobody knows how many there will be."""
    failures = FailureLimit(0.5, all_known=False)
    state = SweepState()
    for number in range(1, 5):
        apply(state, ev.TasksPlanned(1), 0.0)
        assert failures.count(state) is None, number
    apply(state, ev.TasksPlanned(1), 0.0)
    assert failures.count(state) is not None


# --- signals ---------------------------------------------------------------------------------------


def kill(signum: int) -> None:
    """Send this process a signal, from another thread than the engine's."""
    threading.Thread(target=os.kill, args=(os.getpid(), signum)).start()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_running_tasks(tmp_path: Path, signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    sources = [FakeSource("a", 2, held), FakeSource("b", 1, held)]
    with Rig(tmp_path, *sources) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signum), task=2)
        with pytest.raises(SweepInterrupted, match=signum.name) as caught:
            rig.run(6)
        assert caught.value.signum == signum
        assert sorted(cancels(rig)) == [0, 1, 2]
        assert (rig.count(TaskState.PENDING), rig.state.active) == (6, 0)
        assert len(rig.of(ev.AttemptSubmitted)) == 3
    assert signal.getsignal(signum) == before


def test_a_task_that_ends_well_while_the_sweep_is_interrupted_is_kept(tmp_path: Path) -> None:
    source = FakeSource("a", 2, held, stubborn=True)
    source.after_cancel = lambda: [source.finish(0), source.finish(1, failed(Cause.CANCELLED))]
    with Rig(tmp_path, source) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signal.SIGINT), task=1)
        with pytest.raises(SweepInterrupted):
            rig.run(3)
        assert [rig.state.tasks[i].state.value for i in range(3)] == ["completed", "pending", "pending"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_the_tasks(tmp_path: Path, second: int) -> None:
    source = FakeSource("a", 2, held, stubborn=True)
    source.after_cancel = lambda: kill(second)
    with Rig(tmp_path, source, config=HsmConfig(grace=1e6)) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signal.SIGINT), task=1)
        with pytest.raises(SweepInterrupted) as caught:
            rig.run(6)
        assert caught.value.signum == signal.SIGINT
        assert rig.state.active == 2
        assert {a.task.index for a in source.cancelled} == {0, 1}


DETACH = HsmConfig(on_interrupt="detach")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_on_interrupt_detach_leaves_those_running_that_need_no_launcher(
    tmp_path: Path, signum: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    here, far = FakeSource("here", 2, held), FakeSource("far", 1, held, outlives=True)
    with Rig(tmp_path, here, far, config=DETACH) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signum), task=2)
        with pytest.raises(SweepInterrupted, match=signum.name) as caught:
            rig.run(6)
        assert caught.value.leave
        left = [a.task.index for a in far.active.values()]
        assert (len(left), far.cancelled) == (1, [])
        assert sorted([*cancels(rig), *left]) == [0, 1, 2]
        assert rig.state.active == 1
    assert "ending the running tasks but those on far" in caplog.text


def test_what_was_left_running_is_taken_over(tmp_path: Path) -> None:
    far = FakeSource("far", 1, held, outlives=True)
    with Rig(tmp_path, far, config=DETACH) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signal.SIGINT))
        with pytest.raises(SweepInterrupted):
            rig.run(1)
        attempt = far.active[0]
    later = FakeSource("far", 1)
    with Rig(tmp_path, later, config=DETACH) as rig:
        rig.engine.adopt({"far": [attempt]})

        def end() -> None:
            if later.active:
                later.finish(0)

        rig.idle = end
        rig.run([attempt.task])
        assert later.submitted == []
        assert rig.count(TaskState.COMPLETED) == 1


def test_by_default_nothing_is_left_running(tmp_path: Path) -> None:
    far = FakeSource("far", 1, held, outlives=True)
    with Rig(tmp_path, far) as rig:
        rig.once(ev.AttemptStarted, lambda e: kill(signal.SIGINT))
        with pytest.raises(SweepInterrupted) as caught:
            rig.run(1)
        assert (caught.value.leave, cancels(rig)) == (False, [0])


def test_a_cancelled_sweep_leaves_nothing_running(tmp_path: Path) -> None:
    far = FakeSource("far", 1, held, outlives=True)
    with Rig(tmp_path, far, config=DETACH) as rig:
        rig.once(ev.AttemptStarted, lambda e: send(rig.hsm, "cancel"))
        with pytest.raises(SweepInterrupted) as caught:
            rig.run(1)
        assert (caught.value.leave, cancels(rig)) == (False, [0])


def test_tasks_that_do_not_end_are_left_after_their_grace_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource("a", 1, held, stubborn=True)
    real, jump = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + jump)

    def later() -> None:
        nonlocal jump
        jump = 15.1

    with Rig(tmp_path, source, config=HsmConfig(grace=10.0)) as rig:
        rig.once(ev.AttemptStarted, lambda e: send(rig.hsm, "cancel"))
        rig.once(ev.CommandDone, lambda e: later())
        with pytest.raises(SweepInterrupted):
            rig.run(1)
        assert rig.state.active == 1


# --- commands --------------------------------------------------------------------------------------


def test_cancel_by_command(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a", 2, held)) as rig:
        sent: list[str] = []
        rig.once(ev.AttemptStarted, lambda e: sent.append(send(rig.hsm, "cancel")), task=1)
        with pytest.raises(SweepInterrupted) as caught:
            rig.run(5)
        assert caught.value.signum == 0
        (told,) = rig.of(ev.CommandDone)
        assert (told.id, told.command, told.ok) == (sent[0], "cancel", True)
        assert sorted(cancels(rig)) == [0, 1]
        assert (rig.count(TaskState.PENDING), rig.state.active) == (5, 0)
        assert list((rig.hsm / "control").iterdir()) == []


def test_commands_that_are_none_are_refused_and_the_sweep_goes_on(tmp_path: Path) -> None:
    source = FakeSource("a", 1, held)
    with Rig(tmp_path, source) as rig:
        sent: list[str] = []

        def tell(event: ev.AttemptStarted) -> None:
            sent.append(send(rig.hsm, "dance", tempo=3))
            (rig.hsm / "control" / "0.json").write_text("no JSON")

        rig.once(ev.AttemptStarted, tell)
        rig.once(ev.CommandDone, lambda e: source.finish(0), command="dance")
        rig.run(1)
        assert [(e.id, e.ok) for e in rig.of(ev.CommandDone)] == [("0", False), (sent[0], False)]
        assert "unknown command 'dance'" in rig.of(ev.CommandDone)[1].message
        assert rig.count(TaskState.COMPLETED) == 1


def test_commands_are_heard_while_events_keep_coming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_core.engine.HEARTBEAT", 0.0)
    with Rig(tmp_path, FakeSource("a", 1)) as rig:
        rig.once(ev.AttemptStarted, lambda e: send(rig.hsm, "cancel"), task=5)
        with pytest.raises(SweepInterrupted):
            rig.run(10_000)
        assert rig.count(TaskState.COMPLETED) < 20


# --- a newer launcher ------------------------------------------------------------------------------


def test_an_engine_submits_no_more_when_another_launcher_took_the_sweep_over(tmp_path: Path) -> None:
    source = FakeSource("a", 1, held)
    with Rig(tmp_path, source) as rig:
        rig.once(ev.AttemptStarted, lambda e: [Owner.acquire(rig.hsm, takeover=True), source.finish(0)])
        with pytest.raises(Superseded, match="epoch 1"):
            rig.run(3)
        assert [a.task.index for a in source.submitted] == [0]


def test_an_engine_that_is_idle_finds_out_too(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a", 1, held)) as rig:
        rig.once(ev.AttemptStarted, lambda e: Owner.acquire(rig.hsm, takeover=True))
        with pytest.raises(Superseded):
            rig.run(1)


def test_the_next_run_of_an_engine_that_was_succeeded_starts_nothing(tmp_path: Path) -> None:
    source = FakeSource("a", 1)
    with Rig(tmp_path, source) as rig:
        rig.run(2)
        Owner.acquire(rig.hsm, takeover=True)
        with pytest.raises(Superseded):
            rig.run(2)
        assert len(source.submitted) == 2
