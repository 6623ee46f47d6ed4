"""Wall times as they stand in configurations."""

from __future__ import annotations

import re

import pytest

from hsm_core.config.walltime import clock_text, wall_seconds

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        ("12:00:00", 12 * HOUR),
        ("48:00:00", 2 * DAY),
        ("1:30", 90),
        ("90:00", 90 * 60),
        ("0:0:1", 1),
        ("1-12", DAY + 12 * HOUR),
        ("1-12:30", DAY + 12 * HOUR + 1800),
        ("1-12:30:15", DAY + 12 * HOUR + 1815),
        ("0-00:05", 300),
        ("90m", 90 * 60),
        ("90 min", 90 * 60),
        ("90 Minutes", 90 * 60),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1d 12h", DAY + 12 * HOUR),
        ("2days", 2 * DAY),
        ("45s", 45),
        (" 10 sec ", 10),
    ],
)
def test_wall_seconds(walltime: str, seconds: int) -> None:
    assert wall_seconds(walltime) == seconds


@pytest.mark.parametrize(
    "walltime",
    ["", "soon", "12:00:00:00", "1:60", "1:00:60", "1-24", "1-12:60", "-5m", "5m5", "m", "5x", "1,5h", "5month",
     "INFINITE", "٤:٤", "9" * 5000 + ":00", "9" * 5000 + "m"],
)  # fmt: skip
def test_what_is_no_wall_time(walltime: str) -> None:
    with pytest.raises(ValueError, match=r"is no wall time; write for example 12:00:00, 1-12:00:00 or 90m"):
        wall_seconds(walltime)


def test_a_number_alone_means_other_things_to_other_schedulers() -> None:
    with pytest.raises(
        ValueError, match=re.escape("the text '90' has no unit; write 90m for minutes, 90s for seconds")
    ):
        wall_seconds("90")
    # What YAML makes of 12:00:00 without quotes.
    with pytest.raises(ValueError, match=r"the number 43200 is no wall time; write for example 12:00:00, .* in quotes"):
        wall_seconds(43200)


@pytest.mark.parametrize("walltime", ["0:00", "0s", "0-00", "999999d", "999999999:00:00"])
def test_wall_times_that_no_job_has(walltime: str) -> None:
    with pytest.raises(ValueError, match="no wall time that a job can have; leave it out for the queue's own"):
        wall_seconds(walltime)


@pytest.mark.parametrize("walltime", [True, None, ["1:00:00"], 1.5])
def test_other_things_are_no_wall_time(walltime: object) -> None:
    with pytest.raises(ValueError, match="is no wall time"):
        wall_seconds(walltime)


@pytest.mark.parametrize(("seconds", "text"), [(1, "00:00:01"), (5400, "01:30:00"), (100 * HOUR, "100:00:00")])
def test_a_clock_text_is_read_back(seconds: int, text: str) -> None:
    assert clock_text(seconds) == text
    assert wall_seconds(text) == seconds
