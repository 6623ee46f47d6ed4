"""Whether, and when, a failed attempt is followed by another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core.config import ComputeConfig
from hsm_core.retry import LOST_LIMIT, retry_delay
from hsm_core.task import Cause, Outcome, TaskState

EVER = {cause.value: 1000 for cause in Cause}


def delays(config: ComputeConfig, cause: Cause, count: int) -> list[float | None]:
    """The delay after the first failure with this cause, the second, ..."""
    outcome = Outcome.failed(cause, "no")
    return [retry_delay(config, outcome, {**EVER, cause.value: earlier}) for earlier in range(count)]


def test_a_completed_attempt_is_the_last() -> None:
    for earlier in ({}, EVER):
        assert retry_delay(ComputeConfig(retry_attempts=9), Outcome(TaskState.COMPLETED), earlier) is None


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
        assert delays(config, Cause.LOST, LOST_LIMIT + 1) == [*[0.0] * (LOST_LIMIT - 1), None, None]


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
    config = ComputeConfig(retry_attempts=attempts, retry_delay=delay, exponential_backoff=backoff)
    seconds = retry_delay(config, Outcome.failed(cause, "no"), {cause.value: earlier})
    assert seconds is None or 0.0 <= seconds <= 3600.0
