"""Whether, and when, a failed attempt is followed by another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core.config import ComputeConfig, HsmConfig, OomRetry, RetryConfig
from hsm_core.retry import next_memory, retry_delay, shortage_advice
from hsm_core.sources.hpc.resources import parse
from hsm_core.state import AttemptRecord
from hsm_core.task import Cause, Outcome, TaskState

EVER = {cause.value: 1000 for cause in Cause}


def delays(compute: ComputeConfig, cause: Cause, count: int, retry: RetryConfig | None = None) -> list[float | None]:
    """The delay after the first failure with this cause, the second, ..."""
    config, outcome = HsmConfig(compute=compute, retry=retry or RetryConfig()), Outcome.failed(cause, "no")
    return [retry_delay(config, outcome, {**EVER, cause.value: earlier}, None) for earlier in range(count)]


def test_a_completed_attempt_is_the_last() -> None:
    for earlier in ({}, EVER):
        config = HsmConfig(compute=ComputeConfig(retry_attempts=9))
        assert retry_delay(config, Outcome(TaskState.COMPLETED), earlier, None) is None


def test_errors_are_not_retried_unless_asked() -> None:
    assert delays(ComputeConfig(), Cause.ERROR, 2) == [None, None]


def test_errors_are_retried_as_often_as_asked() -> None:
    assert delays(ComputeConfig(retry_attempts=2), Cause.ERROR, 4) == [0.0, 0.0, None, None]
    assert delays(ComputeConfig(retry_attempts=3, retry_delay=7.5), Cause.ERROR, 4) == [7.5, 7.5, 7.5, None]


def test_delays_double_up_to_an_hour() -> None:
    config = ComputeConfig(retry_attempts=100, retry_delay=60.0, exponential_backoff=True)
    assert delays(config, Cause.ERROR, 9) == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert delays(ComputeConfig(retry_attempts=1, retry_delay=9999.0), Cause.ERROR, 1) == [3600]


@pytest.mark.parametrize(("delay", "longest"), [(0.0, 0.0), (1e-300, 3600.0)])
def test_delays_double_as_often_as_there_are_retries(delay: float, longest: float) -> None:
    config = ComputeConfig(retry_attempts=5000, retry_delay=delay, exponential_backoff=True)
    assert delays(config, Cause.ERROR, 5001)[-2:] == [longest, None]


def test_lost_is_retried_until_its_limit() -> None:
    for config in (ComputeConfig(), ComputeConfig(retry_attempts=50, retry_delay=5.0)):
        assert delays(config, Cause.LOST, 4) == [0.0, 0.0, None, None]
        assert delays(config, Cause.LOST, 3, RetryConfig(lost=1)) == [None, None, None]


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.CANCELLED])
def test_what_blames_nobody_is_made_up_for_without_end(cause: Cause) -> None:
    assert set(delays(ComputeConfig(), cause, 500)) == {0.0}


@pytest.mark.parametrize("cause", [Cause.OOM, Cause.TIMEOUT, Cause.REJECTED])
def test_what_would_fail_again_is_not_retried(cause: Cause) -> None:
    assert delays(ComputeConfig(retry_attempts=9), cause, 2) == [None, None]


@given(st.integers(0, 10**6), st.floats(0, 1e9), st.booleans(), st.sampled_from(Cause), st.integers(0, 10**6))
@settings(deadline=None)
def test_a_delay_is_never_negative_nor_longer_than_an_hour(
    attempts: int, delay: float, backoff: bool, cause: Cause, earlier: int
) -> None:
    compute = ComputeConfig(retry_attempts=attempts, retry_delay=delay, exponential_backoff=backoff)
    retry = RetryConfig(timeout=attempts, oom=attempts, lost=attempts + 1)
    config = HsmConfig(compute=compute, retry=retry)
    seconds = retry_delay(config, Outcome.failed(cause, "no"), {cause.value: earlier}, None)
    assert seconds is None or 0.0 <= seconds <= 3600.0


def test_each_cause_has_its_own_count() -> None:
    compute, retry = ComputeConfig(retry_attempts=3, retry_delay=2.0), RetryConfig(error=1, timeout=2, oom=0)
    assert delays(compute, Cause.ERROR, 3, retry) == [2.0, None, None]
    assert delays(compute, Cause.TIMEOUT, 3, retry) == [2.0, 2.0, None]
    assert delays(compute, Cause.OOM, 2, retry) == [None, None]


def ended(cause: Cause, memory: float | None, given: float | None = None, needs: float | None = None) -> AttemptRecord:
    """An attempt that was allowed `memory`, for which `needs` was asked, and that had `given` from its scheduler."""
    outcome = Outcome.failed(cause, "no", given=given)
    return AttemptRecord(1, 1, "cluster", 0.0, memory, needs, outcome=outcome)


def memories(config: HsmConfig) -> list[float | None]:
    """What the attempts of a task get that runs out of memory each time."""
    given = [next_memory(config, None)[0]]
    outcome = Outcome.failed(Cause.OOM, "no")
    while retry_delay(config, outcome, {"oom": len(given) - 1}, given[-1]) is not None:
        given.append(next_memory(config, ended(Cause.OOM, given[-1]))[0])
    return given


@pytest.mark.parametrize(
    ("memory", "oom", "given"),
    [
        ("1GB", 0, [1024]),
        ("1GB", 2, [1024, 1024, 1024]),
        (None, 1, [None, None]),
        ("1GB", OomRetry(2, "x2"), [1024, 2048, 4096]),
        (512, OomRetry(9, "x1.5", "1GB"), [512, 768, 1024]),
        ("2GB", OomRetry(9, "x2", "1GB"), [2048]),
        (None, OomRetry(1, "x2", "1GB"), [None, None]),
    ],
)
def test_memory_grows_up_to_its_most(memory: str | int | None, oom: int | OomRetry, given: list[float | None]) -> None:
    assert memories(HsmConfig(memory_per_task=memory, retry=RetryConfig(oom=oom))) == given


def test_other_failures_leave_the_memory_as_it_is() -> None:
    config = HsmConfig(memory_per_task="1GB", retry=RetryConfig(oom=OomRetry(2, "x2")))
    assert next_memory(config, ended(Cause.LOST, 2048.0, needs=4096.0)) == (2048.0, 4096.0)


GROWING = RetryConfig(oom=OomRetry(9, "x2", "4GB"))


@pytest.mark.parametrize(
    ("memory", "given", "following"),
    [
        (None, 100.0, (None, 200.0)),
        (100.0, 100.0, (200.0, 200.0)),
        (1000.0, 100.0, (1000.0, 200.0)),
        (100.0, 1000.0, (200.0, 200.0)),
        (100.0, None, (200.0, 200.0)),
        (None, 3000.0, (None, 4096.0)),
        (None, None, (None, 50.0)),
    ],
)
def test_what_ran_out_grows(memory: float | None, given: float | None, following: tuple[float | None, float]) -> None:
    """A limit of one's own, or what the scheduler gave: of whichever was less there is more."""
    last = ended(Cause.OOM, memory, given, needs=50.0)
    assert next_memory(HsmConfig(retry=GROWING), last) == following


@pytest.mark.parametrize(("given", "delay"), [(2048.0, 0.0), (4096.0, None), (None, 0.0)])
def test_what_a_scheduler_gave_has_a_limit_too(given: float | None, delay: float | None) -> None:
    outcome = Outcome.failed(Cause.OOM, "no", given=given)
    assert retry_delay(HsmConfig(retry=GROWING), outcome, {}, None) == delay


GROWTH = "retry.oom={times: 2, mem: x2} where it runs out"


@pytest.mark.parametrize(
    ("memory", "given", "peak", "words"),
    [
        (None, 32768.0, 31000.0, f"; give it more with hsm.resources.mem=64GB, with default_resources of its source, "
         f"or with {GROWTH}"),
        (None, 100.0, 314.2, f"; give it more with hsm.resources.mem=630MB, with default_resources of its source, "
         f"or with {GROWTH}"),
        (200.0, 100.0, None, f"; give it more with hsm.resources.mem=200MB, with default_resources of its source, "
         f"or with {GROWTH}"),
        (100.0, 100.0, None, f"; give it more with memory_per_task, or with {GROWTH}"),
        (100.0, None, 120.0, f"; give it more with memory_per_task, or with {GROWTH}"),
        (None, None, 120.0, "; memory_per_task and retry.oom would give each attempt its own limit, "
         "and the next one more"),
    ],
)  # fmt: skip
def test_what_to_do_about_a_lack_of_memory(
    memory: float | None, given: float | None, peak: float | None, words: str
) -> None:
    outcome = Outcome.failed(Cause.OOM, "no", given=given, peak_memory=peak)
    assert shortage_advice(HsmConfig(), outcome, memory) == words


def test_the_advice_can_be_followed() -> None:
    outcome = Outcome.failed(Cause.OOM, "no", given=3072.0)
    asked = re.search(r"hsm\.resources\.(\w+)=(\w+)", shortage_advice(HsmConfig(), outcome, None))
    assert asked is not None
    assert parse({asked[1]: asked[2]}).memory == 6144


def test_who_had_all_that_it_may_get_is_told_so() -> None:
    outcome = Outcome.failed(Cause.OOM, "no", given=4096.0)
    assert shortage_advice(HsmConfig(retry=GROWING), outcome, None) == "; it had all that retry.oom allows"
