"""The monitor: figures of a state, tables of the figures, and following a journal to its end."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, RenderableType

from hsm_core import events as ev
from hsm_core.event_text import Line
from hsm_core.monitor.view import progress_table, screen, source_table
from hsm_core.monitor.watch import Watch, watch_changes
from hsm_core.owner import OwnerInfo
from hsm_core.summary import condition, count_words, eta_words, figures, queue_words, remaining_seconds, status_words
from hsm_core.task import Cause, Outcome

if TYPE_CHECKING:
    from hsm_core.summary import Figures
    from tests.unit.conftest import Story


def text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(rendered: str, first: str) -> list[str]:
    """The cells of the row that begins with this one."""
    found = [line.strip("│ ").split("│") for line in rendered.splitlines() if line.startswith(f"│ {first} ")]
    assert len(found) == 1, rendered
    return [cell.strip() for cell in found[0]]


def owner(released: bool = False, alive: bool | None = True) -> OwnerInfo:
    return OwnerInfo("laptop", 1, 1, 0.0, released, alive)


def guide(story: Story) -> None:
    """A sweep like the guide's: 100 tasks, of which 6 completed, 2 failed, 3 are active."""
    story.begin("local", "server1", slots=4)
    story.tell(ev.TasksPlanned(100))
    for n in range(6):
        story.complete(f"lr={n}", seconds=10.0)
    for n in range(2):
        story.fail(f"bad={n}", source="server1")
    for n in range(3):
        story.submit(story.add(f"now={n}"))
    story.tell(ev.SourceDown("server1", "no answer for 30s"))


def test_why_jobs_wait_and_where_others_run(story: Story) -> None:
    story.begin("cluster", "local")
    story.tell(ev.SourceQueue("cluster", {"waits for free nodes": 3}, {"n1": 1}))
    rendered = text(screen(figures(story.state), [], None))
    assert "cluster: 3 jobs pending (waits for free nodes), 1 running on n1\n" in rendered
    assert "local:" not in rendered
    story.tell(ev.SourceQueue("cluster", {"held\x1b[0m": 2, "waits for free nodes": 1}, {}))
    assert queue_words(figures(story.state).sources[0]) == ("3 jobs pending (2: held\\x1b[0m; 1: waits for free nodes)")
    story.tell(ev.SourceQueue("cluster", {}, {"n2": 2, "n1": 1}))
    assert queue_words(figures(story.state).sources[0]) == "3 jobs running on n2 (2), n1 (1)"
    assert figures(story.state).to_json()["sources"][0]["running_jobs"] == {"n2": 2, "n1": 1}
    story.tell(ev.SourceStarted("cluster", "hpc", 2))  # a later launcher has not asked yet
    assert queue_words(figures(story.state).sources[0]) == ""
    story.tell(ev.SourceQueue("cluster", {}, {"n1": 1}))
    story.end()
    assert queue_words(figures(story.state).sources[0]) == ""


def test_counts_add_up(story: Story) -> None:
    guide(story)
    now = figures(story.state)
    assert (now.completed, now.failed, now.active, now.pending, now.total) == (6, 2, 3, 89, 100)
    assert now.success_rate == 0.75
    assert now.fraction == 0.08
    assert json.loads(json.dumps(now.to_json()))["sources"][1]["health"] == "unknown"


def test_the_tables_have_the_facts_of_the_guide(story: Story) -> None:
    guide(story)
    rendered = text(screen(figures(story.state), [(story.at, Line(40, "Task task_047 failed on server1"))], 5.0))
    assert story.state.id in rendered
    assert "every 5s" in rendered
    assert row(rendered, "Status")[1] == "Running"
    assert row(rendered, "Progress")[1].endswith("8/100 (8%)")
    assert row(rendered, "Completed")[1] == "6 tasks"
    assert row(rendered, "Failed")[1] == "2 tasks"
    assert row(rendered, "Active")[1] == "3 tasks"
    assert row(rendered, "Pending")[1] == "89 tasks"
    assert row(rendered, "Success Rate")[1] == "75.0%"
    assert row(rendered, "ETA")[1].startswith("~")
    assert row(rendered, "local") == ["local", "3/4", "6", "0", "Healthy"]
    assert row(rendered, "server1") == ["server1", "0/4", "0", "2", "Unknown: no answer for 30s"]
    assert "] Task task_047 failed on server1" in rendered


def test_text_of_tasks_and_sources_is_no_markup_and_acts_on_nothing(story: Story) -> None:
    story.begin("[red]a[/red]\x1b[2J")
    story.tell(ev.SourceDisabled("[red]a[/red]\x1b[2J", "[bold]why\x07"))
    rendered = text(source_table(figures(story.state).sources))
    assert "[red]a[/red]\\x1b[2J" in rendered
    assert "Disabled: [bold]why\\x07" in rendered


def test_a_terminal_without_unicode_gets_tables_too(story: Story) -> None:
    guide(story)
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=100).print(screen(figures(story.state), [], None))
    file.seek(0)
    assert "8/100 (8%)" in file.read()


def test_eta_counts_the_slots_that_can_be_used(story: Story) -> None:
    guide(story)
    mean, left = (6 * 10 + 2 * 0.5) / 8, 92
    assert remaining_seconds(story.state) == pytest.approx(mean * left / 4)
    story.tell(ev.SourceUp("server1"))
    assert remaining_seconds(story.state) == pytest.approx(mean * left / 8)
    assert eta_words(figures(story.state)) == "~1m 28s remaining"


def test_eta_is_unknown_before_the_first_end_and_without_a_source(story: Story) -> None:
    story.begin()
    story.submit(story.add("lr=1"))
    assert figures(story.state).eta is None
    story.complete("lr=2")
    story.tell(ev.SourceDisabled("local", "no"))
    assert figures(story.state).eta is None
    assert row(text(progress_table(figures(story.state))), "ETA")[1] == "-"


def test_the_end_of_the_sweep_leaves_nothing_to_wait_for(story: Story) -> None:
    story.begin()
    story.complete("lr=1")
    story.end("interrupted", "by SIGINT")
    now = figures(story.state)
    assert now.eta is None
    assert status_words(now) == "Interrupted: by SIGINT"
    assert count_words(now) == "1/1 task (100%), 1 completed, 0 failed, 0 active, 0 pending"


@pytest.mark.parametrize(
    ("holder", "status"),
    [
        (None, "running"),
        (owner(), "running"),
        (owner(alive=None), "running"),
        (owner(alive=False), "launcher gone"),
        (owner(released=True), "launcher gone"),
    ],
)
def test_who_holds_a_sweep_without_an_end(story: Story, holder: OwnerInfo | None, status: str) -> None:
    story.begin()
    assert condition(story.state, holder) == status
    story.end()
    assert condition(story.state, holder) == "finished"


def test_watch_follows_the_journal_to_its_end(story: Story) -> None:
    watch = Watch(story.directory)
    assert (watch.poll(), watch.figures.status) == ([], "empty")
    story.begin()
    story.complete("lr=1")
    assert [told.text for _, told in watch.poll()][-1] == "Task task_001 completed on local (2.0s)"
    assert watch.poll() == []
    assert not watch.over
    task = story.add("lr=2")
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.OOM, "over 4 GiB"))
    story.end()
    watch.poll()
    assert watch.over
    assert not watch.launcher_gone
    assert watch.figures == figures(story.state)
    assert [told.text for _, told in watch.recent][-2].startswith("Task task_002 failed on local (oom): over 4 GiB")


def test_recent_activity_is_short(story: Story) -> None:
    story.begin()
    for n in range(30):
        story.complete(f"lr={n}")
    watch = Watch(story.directory)
    watch.poll()
    assert len(watch.recent) == 10


def test_changes_are_told_until_the_end(story: Story) -> None:
    story.begin()
    story.complete("lr=1")
    told: list[tuple[int, list[str]]] = []

    def show(now: Figures, lines: list[str]) -> None:
        told.append((now.ended, lines))
        if now.ended == 1:
            story.fail("lr=2")
        elif now.status == "running":
            story.end()

    watch_changes(Watch(story.directory), 0.001, show)
    # What happened before is in the figures only; then events line by line.
    assert len(told[0][1]) == 1
    assert told[0][1][0].startswith("Running: 1/1 task (100%)")
    assert any("task_002 failed" in line for line in told[1][1])
    assert told[-1][1][-1].startswith("Finished: 2/2 tasks (100%)")
