"""The reports written at the end of a sweep, from its journal alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hsm_core import events as ev
from hsm_core.exceptions import JournalError
from hsm_core.report_page import Timeline, most_active, page
from hsm_core.reports import write_reports
from hsm_core.task import Cause, Outcome

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def analysis(story: Story) -> Any:
    write_reports(story.directory)
    return yaml.safe_load((story.directory / "reports" / "performance_analysis.yaml").read_text(encoding="utf-8"))


def test_the_figures_add_up(story: Story) -> None:
    story.begin("local", "spare", "idle")
    for n, seconds in enumerate((1.0, 2.0, 6.0)):
        story.complete(f"lr={n}", seconds=seconds)
    story.fail("lr=9", source="spare")
    retried = story.add("lr=10")
    story.submit(retried, "spare")
    story.finish(retried, Outcome.failed(Cause.LOST, "gone", duration=0.25), retry_in=0.0)
    story.submit(retried)
    story.finish(retried, Outcome.failed(Cause.TIMEOUT, "slow", duration=4.0))
    story.add("lr=11")
    story.end("stopped")
    found = analysis(story)
    assert found["status"] == "stopped"
    assert found["tasks"] == {"total": 6, "completed": 3, "failed": 2, "pending": 1}
    assert found["attempts"] == 6
    assert found["busy_seconds"] == 13.75
    assert found["failures_by_cause"] == {"error": 1, "timeout": 1}
    local, spare, idle = (found["sources"][name] for name in ("local", "spare", "idle"))
    assert (local["attempts"], local["completed"], local["failed"]) == (4, 3, 1)
    assert local["failures_by_cause"] == {"timeout": 1}
    assert local["duration_seconds"] == {"mean": 3.0, "median": 2.0, "max": 6.0}
    assert spare["failures_by_cause"] == {"error": 1, "lost": 1}
    assert spare["duration_seconds"] is None
    assert (idle["attempts"], idle["busy_seconds"], idle["utilisation"]) == (0, 0, 0)
    assert [task["task"] for task in found["slowest_tasks"]][:2] == ["task_003", "task_005"]
    assert local["utilisation"] == round(13 / (2 * found["elapsed_seconds"]), 4)


def test_a_clock_that_is_set_back_takes_no_time_away(story: Story) -> None:
    story.begin(slots=1)
    story.complete("lr=1")
    running = story.add("lr=2")
    story.submit(running)
    before = analysis(story)["elapsed_seconds"]
    story.at -= 86400
    story.finish(running, Outcome.failed(Cause.ERROR, "no", duration=2.0))
    for n in range(3, 13):
        story.complete(f"lr={n}", seconds=3.0)
    story.end()
    found = analysis(story)
    assert found["elapsed_seconds"] == before + 41
    assert found["sources"]["local"]["utilisation"] == round(34 / found["elapsed_seconds"], 4)
    text = (story.directory / "reports" / "source_utilization.html").read_text()
    assert f"({before + 41:.1f}s)" in text


def test_the_pause_before_a_resume_is_no_time_of_the_sweep(story: Story) -> None:
    story.begin()
    story.tell(ev.SweepFinished("interrupted"), after=10)
    story.tell(ev.SweepResumed(2, "laptop", 1), after=100_000)
    story.tell(ev.SweepFinished("finished"), after=5)
    assert analysis(story)["elapsed_seconds"] == 16


def test_a_sweep_without_tasks_has_reports_too(story: Story) -> None:
    story.begin()
    story.end()
    assert analysis(story)["tasks"]["total"] == 0
    assert "<svg" in (story.directory / "reports" / "source_utilization.html").read_text()


def test_a_journal_that_cannot_be_read_is_told(story: Story) -> None:
    story.begin()
    journal = story.directory / ".hsm" / "journal.jsonl"
    journal.write_bytes(b"garbage\n" + journal.read_bytes())
    with pytest.raises(JournalError):
        write_reports(story.directory)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attrs}


def test_the_page_needs_nothing_else_and_runs_nothing(story: Story) -> None:
    story.begin("<script>alert(1)</script>", '"onload="x')
    story.complete("lr=1", source='"onload="x')
    story.end()
    write_reports(story.directory)
    text = (story.directory / "reports" / "source_utilization.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(text)
    assert parser.seen.count("svg") == 2
    assert "script" not in parser.seen
    assert "&lt;script&gt;alert(1)" in text
    assert "http" not in text


def test_the_page_does_not_grow_with_the_tasks() -> None:
    def size(tasks: int) -> int:
        active = [(n / tasks * 100, n / tasks * 100 + 1) for n in range(tasks)]
        return len(page("sweep", 0, 101, [Timeline("local", "local", 4, active)]))

    assert size(20_000) < 20_000


def test_the_curve_is_within_the_picture() -> None:
    text = page("sweep", 0, 10, [Timeline("local", "local", 2, [(1, 9)] * 7)])
    (path,) = re.findall(r'<path d="([^"]*)"', text)
    heights = [float(height) for height in re.findall(r"V([\d.]+)", path)]
    assert min(heights) >= 0
    assert max(heights) <= 90
    assert "At most 7 active at once" in text


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=20))
def test_columns_hold_the_most_that_were_active(spans: list[tuple[float, float]]) -> None:
    active = [(start, start + length) for start, length in spans]
    columns = most_active(active, 0, 130, 13)
    changes = sorted({moment for pair in active for moment in pair})
    at_once = [sum(start <= moment < end for start, end in active) for moment in changes]
    assert max(columns) == max(at_once, default=0)
    assert min(columns) >= 0


def test_columns_between_two_changes_are_filled() -> None:
    assert most_active([(1.5, 8.5), (3.5, 4.5)], 0, 10, 10) == [0, 1, 1, 2, 2, 1, 1, 1, 1, 0]
