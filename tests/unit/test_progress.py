"""What the launcher shows: plain lines, and a live line that nothing else on the terminal breaks."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from hsm_core import events as ev
from hsm_core.listeners.progress import Progress
from hsm_core.task import Cause, Outcome, TaskState

if TYPE_CHECKING:
    from tests.unit.conftest import Story


@pytest.fixture
def shown(story: Story) -> io.StringIO:
    stream = io.StringIO()
    story.listeners.append(Progress(story.directory, stream))
    return stream


def fail(story: Story, traceback: str, *overrides: str, retry_in: float | None = None) -> None:
    task = story.add(*overrides)
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.ERROR, "ValueError: no", **story.output(task, b"", traceback)), retry_in)


def test_a_failure_is_shown_at_once_with_its_traceback_and_log(story: Story, shown: io.StringIO) -> None:
    story.begin()
    fail(story, "Traceback (most recent call last):\nValueError: no\n", "lr=0.1", "name='a b'")
    text = shown.getvalue()
    for fact in (
        "Task task_001 failed on local (error): ValueError: no",
        "overrides: lr=0.1 name='a b'",
        "Traceback (most recent call last):\nValueError: no\n",
        f"log: {story.directory}/tasks/task_001/stderr.log",
        f"all of it: {story.directory}/errors/task_001_error.txt",
    ):
        assert fact in text


def test_each_failure_has_its_own_traceback_and_the_same_one_is_shown_once(story: Story, shown: io.StringIO) -> None:
    story.begin()
    fail(story, "ValueError: x=1", "x=1")
    fail(story, "ValueError: x=2", "x=2")
    fail(story, "ValueError: x=1", "x=1")
    text = shown.getvalue()
    assert text.count("\nValueError: x=1\n") == 1
    assert text.count("\nValueError: x=2\n") == 1
    assert "the traceback is that of task_001, above" in text
    assert text.count(" failed on local") == 3


def test_an_attempt_that_is_tried_again_is_shown_too(story: Story, shown: io.StringIO) -> None:
    story.begin()
    fail(story, "ValueError: x=1", "x=1", retry_in=5.0)
    assert "next attempt in 5.0s" in shown.getvalue()
    assert "ValueError: x=1\n" in shown.getvalue()
    assert "all of it" not in shown.getvalue()


def test_cancelled_tasks_are_one_line(story: Story, shown: io.StringIO) -> None:
    story.begin()
    task = story.add("lr=1")
    story.submit(task)
    outcome = Outcome.failed(Cause.CANCELLED, "ended", duration=2.0, **story.output(task, b"", "KeyboardInterrupt"))
    story.finish(task, outcome, retry_in=0.0)
    assert "KeyboardInterrupt" not in shown.getvalue()
    assert shown.getvalue().endswith("Task task_001 cancelled on local (2.0s): ended\n")


def test_progress_is_told_every_tenth(story: Story, shown: io.StringIO) -> None:
    story.pace = 0.01
    story.begin()
    story.tell(ev.TasksPlanned(100))
    for n in range(100):
        story.complete(f"lr={n}", seconds=0.1)
    told = re.findall(r"\d+/100 tasks \(\d+%\)", shown.getvalue())
    assert told == [f"{n}/100 tasks ({n}%)" for n in range(10, 101, 10)]


def test_progress_is_told_every_half_minute_while_tasks_run(story: Story, shown: io.StringIO) -> None:
    story.begin()
    story.tell(ev.TasksPlanned(100))
    for n in range(3):
        story.add(f"lr={n}")
        story.tell(ev.AttemptSubmitted(n, 1, 1, "local"), after=25.0)
    assert re.findall(r"(\d+)/100 tasks", shown.getvalue()) == ["0"]


def test_reopened_tasks_are_no_progress(story: Story, shown: io.StringIO) -> None:
    story.begin()
    story.tell(ev.TasksPlanned(4))
    failed = [story.fail(f"lr={n}") for n in range(4)]
    length = len(shown.getvalue())
    for task in failed:
        story.tell(ev.TaskReopened(task))
    assert shown.getvalue()[length:] == ""


def test_routine_is_not_shown_and_trouble_is(story: Story, shown: io.StringIO) -> None:
    story.begin()
    story.complete("lr=1")
    story.tell(ev.SourceDown("local", "no answer"))
    story.tell(ev.StrategyFailed("mine.py:Mine", "it raised"))
    text = shown.getvalue()
    assert "completed on" not in text
    assert "Source local started (local, 2 slots)" in text
    assert "Source local is down: no answer" in text
    assert "Strategy mine.py:Mine failed" in text


def test_the_level_leaves_out_what_is_below(story: Story) -> None:
    stream = io.StringIO()
    story.listeners.append(Progress(story.directory, stream, level="ERROR"))
    story.begin()
    story.tell(ev.SourceDown("local", "no answer"))
    story.fail("lr=1")
    assert "Source" not in stream.getvalue()
    assert "task_001 failed" in stream.getvalue()


def test_the_end_says_where_the_results_are_and_how_to_go_on(story: Story, shown: io.StringIO) -> None:
    story.begin()
    story.complete("lr=1")
    story.fail("lr=2")
    story.end()
    assert f"results: {story.directory}/reports/results.csv" in shown.getvalue()
    assert f"hsm complete {story.state.id} --retry-failed" in shown.getvalue()


def test_task_text_cannot_act_on_the_terminal(story: Story, shown: io.StringIO) -> None:
    story.begin()
    fail(story, "Error: \x1b]0;evil\x07\n\x9b2J", "name=\x1b[2J")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.getvalue())


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_lost_terminal_does_not_stop_the_sweep(story: Story) -> None:
    story.listeners.append(Progress(story.directory, Gone()))
    story.begin()
    story.fail("lr=1")
    assert story.state.counts[TaskState.FAILED] == 1


def screen(data: bytes) -> list[str]:
    """What a terminal shows after these bytes; knows what a live line needs."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", data.decode()):
        if part == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= 1
        elif not part.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + 1 :]
            column += 1
    return [text.rstrip() for text in rows]


class Terminal:
    """A terminal, 200 columns wide."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", buffering=1)

    def rows(self) -> list[str]:
        """What it shows by now."""
        self.stream.flush()
        os.set_blocking(self.master, False)
        data = b""
        while True:
            try:
                data += os.read(self.master, 65536)
            except BlockingIOError:
                break
        return screen(data)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    yield terminal
    terminal.stream.close()
    os.close(terminal.master)


def test_the_live_line_and_other_output_do_not_break_each_other(
    terminal: Terminal, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    # As Hydra does it: a handler that holds on to the stream from before.
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("test_progress")
    logger.addHandler(handler)
    progress = Progress(story.directory, terminal.stream)
    story.listeners.append(progress)
    try:
        story.begin()
        story.tell(ev.TasksPlanned(4))
        logger.warning("[2026-01-15][HYDRA] a line of Hydra's")
        print("printed by somebody")
        story.complete("lr=1")
        story.fail("lr=2")
        progress.close()
        logger.warning("after the end")
    finally:
        logger.removeHandler(handler)
    rows = terminal.rows()
    assert "[2026-01-15][HYDRA] a line of Hydra's" in rows
    assert "printed by somebody" in rows
    assert any(row.endswith("Task task_002 failed on local (error, 0.5s): ValueError: no") for row in rows)
    # Nothing of the live line is left, and what comes later is written as before.
    assert not [row for row in rows if "tasks (" in row]
    assert rows[-2:] == ["after the end", ""]
    assert handler.stream is terminal.stream


def test_where_the_terminal_gives_way_to_a_file_plain_lines_go_on_there(
    terminal: Terminal, story: Story, tmp_path: Path
) -> None:
    story.listeners.append(Progress(story.directory, terminal.stream))
    story.begin()
    with open(tmp_path / "log", "w") as log:
        os.dup2(log.fileno(), terminal.stream.fileno())
    story.fail("lr=1")
    story.end()
    text = (tmp_path / "log").read_text()
    assert "Task task_001 failed on local" in text
    assert "finished (0 completed, 1 failed)" in text
    assert "\x1b" not in text


def test_a_live_line_whose_terminal_is_gone_harms_nothing(terminal: Terminal, story: Story) -> None:
    progress = Progress(story.directory, terminal.stream)
    story.listeners.append(progress)
    story.begin()
    with open(os.devnull, "r+") as nothing:
        os.dup2(nothing.fileno(), terminal.master)  # hangs up
        story.fail("lr=1")
        story.end()
        progress.close()
        assert story.state.counts[TaskState.FAILED] == 1
        os.dup2(nothing.fileno(), terminal.stream.fileno())


def test_the_live_line_is_one_line_that_tells_how_far_it_is(terminal: Terminal, story: Story) -> None:
    progress = Progress(story.directory, terminal.stream)
    story.listeners.append(progress)
    story.begin()
    story.tell(ev.TasksPlanned(4))
    story.complete("lr=1")
    assert re.fullmatch(
        r"1/4 tasks \(25%\), 1 completed, 0 failed, 0 active, 3 pending, [\d.]+ tasks/(s|min), ~3.0s remaining",
        progress.status(),
    )


def test_output_to_a_file_stays_in_the_file(terminal: Terminal, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    progress = Progress(story.directory, terminal.stream)
    story.listeners.append(progress)
    story.begin()
    print("into the file")
    progress.close()
    assert file.getvalue() == "into the file\n"
