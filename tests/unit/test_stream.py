"""The tasks' output on the terminal: all of it where that can be, in bounds where it is too much."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core import events as ev
from hsm_core.listeners.stream import Stream
from hsm_core.task import Outcome, TaskState
from hsm_core.testing import wait_until

if TYPE_CHECKING:
    from tests.unit.conftest import Story


class Show:
    """A task that runs, and what is shown of its output."""

    def __init__(self, story: Story, out: io.StringIO | None = None) -> None:
        self.story = story
        self.out = out or io.StringIO()
        self.stream = Stream(self.out)
        story.listeners.append(self.stream)
        story.begin()
        self.folder = story.directory / "0"
        self.folder.mkdir()
        self.log = self.folder / "stdout.log"
        task = story.add("x=1")
        story.tell(ev.AttemptSubmitted(task, 1, 1, "local"))
        story.tell(ev.AttemptStarted(task, 1, 1, "local", output_dir=str(self.folder)))

    def append(self, data: bytes) -> None:
        with open(self.log, "ab") as f:
            f.write(data)

    def end(self) -> list[str]:
        """The task and the sweep end; returns the lines that were shown."""
        self.story.finish(0, Outcome(TaskState.COMPLETED))
        self.stream.close()
        return self.out.getvalue().splitlines()


@pytest.fixture
def show(story: Story) -> Show:
    return Show(story)


def test_whole_lines_at_once_and_the_rest_at_the_end(show: Show) -> None:
    show.append(b"one\ntwo\nthr")
    wait_until(lambda: "two" in show.out.getvalue(), "the second line")
    assert "thr" not in show.out.getvalue()
    show.append(b"ee")
    (show.folder / "stderr.log").write_bytes(b"err\n")
    lines = show.end()
    assert [line for line in lines if "err" not in line] == [f"[task_001] {text}" for text in ("one", "two", "three")]
    assert "[task_001] err" in lines


def test_nothing_in_it_acts_on_the_terminal(show: Show) -> None:
    show.append(bytes(range(256)) + b"\x1b]0;evil\x07\n\xff\xfe\x1b[2J")
    text = "\n".join(show.end())
    assert "\\x1b]0;evil\\x07" in text
    assert all(character == "\n" or character.isprintable() for character in text)


def test_a_terminal_that_is_too_far_behind_leaves_out_what_is_old(show: Show) -> None:
    # There at once: of a file that still grows, what was there first would be shown too.
    whole = show.folder / "whole"
    whole.write_bytes(b"".join(b"line %08d\n" % number for number in range(2_000_000)))
    whole.rename(show.log)
    lines = show.end()
    assert len(lines) < 100_000
    assert sum("MiB left out here; all of it: " in line for line in lines) == 1
    assert lines[-1] == "[task_001] line 01999999"


def test_it_goes_on_behind_a_cut(show: Show) -> None:
    show.append(b"one\n" * 1000)
    wait_until(lambda: show.out.getvalue().count("one") == 1000, "all lines")
    show.log.write_bytes(b"one\n" * 10 + b"last before the cut\n")
    wait_until(lambda: "cut short" in show.out.getvalue(), "word of the cut")
    show.append(b"two\n")
    assert show.end()[-2:] == ["[task_001] last before the cut", "[task_001] two"]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "nothing"])
def test_what_is_no_file_is_not_waited_for(show: Show, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    other.write_text("secret\n")
    if kind == "pipe":
        os.mkfifo(show.log)
    elif kind == "link":
        show.log.symlink_to(other)
    elif kind == "folder":
        show.log.mkdir()
    assert show.end() == []


def test_a_terminal_that_is_gone_stops_nothing(story: Story) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    show = Show(story, Gone())
    show.append(b"one\n")
    assert show.end() == []
