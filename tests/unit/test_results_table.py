"""reports/results.csv: always the ended tasks of the state, one appended row for the usual event."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm_core import events as ev
from hsm_core.listeners.results_table import ResultsTable
from hsm_core.remote.names import task_name
from hsm_core.task import Cause, Outcome, TaskState

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "reports" / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture
def table(story: Story) -> ResultsTable:
    table = ResultsTable(story.directory)
    story.listeners.append(table)
    return table


def test_it_is_there_with_its_header_from_the_first_event(story: Story, table: ResultsTable) -> None:
    story.begin()
    header = (story.directory / "reports" / "results.csv").read_text()
    assert header == "task,status,cause,source,attempt,duration,return_value,message\n"


def test_a_row_has_all_that_is_known_of_the_task(story: Story, table: ResultsTable) -> None:
    story.begin("local", "spare")
    story.complete("lr=0.1", "+model.name='a, b'", "hydra.job.chdir=true", value=0.25, source="spare", seconds=3.5)
    story.fail("lr=0.2", "+model.name=c", message="ValueError: one\ntwo")
    assert rows(story.directory) == [
        {
            "task": "task_001",
            "status": "completed",
            "cause": "",
            "source": "spare",
            "attempt": "1",
            "duration": "3.5",
            "return_value": "0.25",
            "lr": "0.1",
            "model.name": "a, b",
            "message": "",
        },
        {
            "task": "task_002",
            "status": "failed",
            "cause": "error",
            "source": "local",
            "attempt": "1",
            "duration": "0.5",
            "return_value": "",
            "lr": "0.2",
            "model.name": "c",
            "message": "ValueError: one\\ntwo",
        },
    ]


def test_only_the_end_of_a_task_makes_a_row(story: Story, table: ResultsTable) -> None:
    story.begin()
    task = story.add("lr=1")
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.LOST, "gone"), retry_in=0.0)
    assert rows(story.directory) == []
    story.submit(task)
    story.finish(task, Outcome(TaskState.COMPLETED))
    assert [(row["task"], row["attempt"]) for row in rows(story.directory)] == [("task_001", "2")]


def test_late_results_leave_no_trace(story: Story, table: ResultsTable) -> None:
    story.begin()
    task = story.complete("lr=1", value=1)
    story.tell(ev.AttemptFinished(task, 1, 1, "local", Outcome.failed(Cause.ERROR, "late")))
    assert [row["status"] for row in rows(story.directory)] == ["completed"]


def test_a_new_override_gets_a_column_in_all_rows(story: Story, table: ResultsTable) -> None:
    story.begin()
    story.complete("lr=1")
    story.complete("lr=2", "depth=3")
    assert [(row["lr"], row["depth"]) for row in rows(story.directory)] == [("1", ""), ("2", "3")]


def test_an_override_named_like_a_column_of_ours_keeps_its_value(story: Story, table: ResultsTable) -> None:
    story.begin()
    story.complete("source=sun", "task=x")
    (row,) = rows(story.directory)
    assert (row["source"], row["override.source"], row["override.task"]) == ("local", "sun", "x")


def test_usual_rows_are_appended_not_rewritten(story: Story, table: ResultsTable) -> None:
    story.begin()
    story.complete("lr=1")
    path = story.directory / "reports" / "results.csv"
    before, inode = path.read_bytes(), path.stat().st_ino
    story.complete("lr=2")
    assert path.stat().st_ino == inode
    assert path.read_bytes().startswith(before)


def test_a_task_that_is_run_again_has_one_row(story: Story, table: ResultsTable) -> None:
    story.begin()
    story.complete("lr=1")
    again = story.fail("lr=2")
    story.fail("lr=3")
    story.tell(ev.TaskReopened(again))
    story.submit(again)
    assert [row["task"] for row in rows(story.directory)] == ["task_001", "task_003"]
    story.finish(again, Outcome(TaskState.COMPLETED, return_value=7))
    assert sorted((row["task"], row["return_value"]) for row in rows(story.directory)) == [
        ("task_001", ""),
        ("task_002", "7"),
        ("task_003", ""),
    ]


def test_many_reopened_tasks_cost_one_rewrite(story: Story, table: ResultsTable) -> None:
    story.begin()
    failed = [story.fail(f"lr={n}") for n in range(20)]
    inodes = set()
    for task in failed:
        story.tell(ev.TaskReopened(task))
        inodes.add((story.directory / "reports" / "results.csv").stat().st_ino)
    assert len(inodes) == 1
    table.close()
    assert rows(story.directory) == []


def test_a_resumed_sweep_starts_from_the_state(story: Story) -> None:
    story.begin()
    story.complete("lr=1", value=1)
    story.fail("lr=2")
    table = ResultsTable(story.directory)
    story.listeners.append(table)
    story.tell(ev.SweepResumed(2, "laptop", 1))
    assert [row["lr"] for row in rows(story.directory)] == ["1", "2"]
    story.complete("lr=3", "x=1")
    table.close()
    assert [(row["lr"], row["x"]) for row in rows(story.directory)] == [("1", ""), ("2", ""), ("3", "1")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"acc": 0.5, "näme": [1]}, '{"acc": 0.5, "näme": [1]}'),
        ([1, None], "[1, null]"),
        ('a, "b"\nc', 'a, "b"\nc'),
        (True, "true"),
        (0, "0"),
        (None, ""),
    ],
)
def test_return_values(story: Story, table: ResultsTable, value: object, text: str) -> None:
    story.begin()
    story.complete("lr=1", value=value)
    assert rows(story.directory)[0]["return_value"] == text


def test_text_that_is_no_utf8_does_not_stop_it(story: Story, table: ResultsTable) -> None:
    story.begin()
    story.complete("name=\udcff\ud800")
    assert rows(story.directory)[0]["name"] == "\\udcff\\ud800"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["new", "fail", "reopen", "run"]), st.integers(0, 3)), max_size=25))
def test_the_file_equals_the_fold(
    tmp_path_factory: pytest.TempPathFactory, story_in: Callable[[Path], Story], steps: list[tuple[str, int]]
) -> None:
    story = story_in(tmp_path_factory.mktemp("fold") / "sweep")
    table = ResultsTable(story.directory)
    story.listeners.append(table)
    story.begin()
    for what, number in steps:
        if what == "new":
            story.complete(f"k{number}=1", value=number)
        elif what == "fail":
            story.fail(f"k{number}=1")
        elif number < len(story.state.tasks) and what == "reopen":
            story.tell(ev.TaskReopened(number))
        elif number < len(story.state.tasks) and story.state.tasks[number].state is TaskState.PENDING:
            story.submit(number)
            story.finish(number, Outcome(TaskState.COMPLETED, return_value=json.dumps(number)))
    story.close()
    ended = [task for task in story.state.tasks.values() if task.outcome is not None]
    told = sorted((row["task"], row["status"]) for row in rows(story.directory))
    assert told == sorted((task_name(task.index), task.state.value) for task in ended)
