"""`hsm attach`: what it shows of a launcher elsewhere, and the exit code it hands on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hsm_core import events as ev
from hsm_core.cli import hsm
from hsm_core.launcher_log import log_path

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def attach(*arguments: str) -> Result:
    return CliRunner().invoke(hsm, ["attach", *arguments])


def end(story: Story, status: str, exit_code: int | None) -> None:
    story.tell(ev.SweepFinished(status, exit_code=exit_code))
    story.owner.release()


@pytest.mark.parametrize(
    ("fails", "status", "told", "code"),
    [
        (0, "finished", 0, 0),
        (1, "finished", 1, 1),
        (1, "finished", 0, 0),  # raise_on_failure=false
        (0, "interrupted", 130, 130),
        (0, "interrupted", 143, 143),
        (0, "interrupted", 1, 1),  # hsm cancel
        (0, "finished", None, 0),  # None: journals of earlier versions
        (1, "finished", None, 1),
        (0, "stopped", None, 1),
    ],
)
def test_the_exit_code_is_the_launchers(story: Story, fails: int, status: str, told: int | None, code: int) -> None:
    story.begin()
    story.complete("lr=0")
    for n in range(fails):
        story.fail(f"lr={n + 1}")
    end(story, status, told)
    result = attach()
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1].startswith(f"{status.capitalize()}: {1 + fails}/{1 + fails} task")


def test_a_sweep_that_goes_on_has_no_exit_code_of_before(story: Story) -> None:
    story.begin()
    end(story, "interrupted", 130)
    story.tell(ev.SweepResumed(2, "laptop", 4711))
    assert story.state.exit_code is None


def test_of_a_launcher_with_a_terminal_what_happened_is_told(story: Story) -> None:
    story.begin()
    story.fail("lr=1", message="bad \x1b[2J")
    end(story, "finished", 1)
    text = attach(story.state.id).stdout
    assert "Task task_001 failed on local (error, 0.5s): bad \\x1b[2J" in text
    assert "\x1b" not in text


def test_of_a_launcher_without_a_terminal_its_words_are_shown(story: Story) -> None:
    story.begin()
    story.complete("lr=1")
    end(story, "finished", 0)
    said = [*(f"line {n}" for n in range(10_000)), "x" * 100_000, "last \x1b]0;evil\x07 words", "unfinished"]
    log_path(story.directory / ".hsm", 1).write_text("\n".join(said))
    lines = attach().stdout.splitlines()
    assert "last \\x1b]0;evil\\x07 words" in lines
    assert lines[-1].startswith("Finished: 1/1 task")
    assert len(lines) <= 11
    assert "Task" not in "".join(lines)


def test_a_launcher_that_is_gone_is_told(story: Story) -> None:
    story.begin()
    story.owner.release()
    result = attach()
    assert result.exit_code == 1
    assert f"The launcher of {story.state.id} is gone. hsm complete {story.state.id} goes on" in result.stderr


def test_for_programs(story: Story) -> None:
    story.begin()
    story.complete("lr=1")
    end(story, "interrupted", 143)
    result = attach("--json")
    assert result.exit_code == 143
    assert json.loads(result.stdout)["status"] == "interrupted"
