"""The commands that look at sweeps and end them: what they print and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hsm_core import events as ev
from hsm_core.cli import hsm
from hsm_core.cli.monitor import monitor
from hsm_core.control import Spool
from hsm_core.owner import Owner

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def run(*arguments: str) -> Result:
    return CliRunner().invoke(hsm, list(arguments))


# --- all commands


def test_help_names_the_commands() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("run", "complete", "monitor", "sweeps", "results", "cancel"):
        assert command in result.stdout


def test_help_is_light() -> None:
    heavy = ("hydra", "omegaconf", "yaml", "psutil", "jinja2")
    code = f"import sys; from hsm_core.cli import hsm; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [["complete", "x"], ["cancel", "x"], ["results", "x"], ["monitor", "watch", "x"]],
    ids=lambda arguments: arguments[0],
)
def test_a_sweep_that_does_not_exist_is_bad_input(story: Story, arguments: list[str]) -> None:
    story.begin()
    result = run(*[argument if argument != "x" else "sweep_20260115_143023" for argument in arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "did you mean sweep_20260115_143022?" in result.stderr
    assert "Traceback" not in result.stderr


def test_hsm_monitor_is_the_group(story: Story) -> None:
    story.begin()
    story.end()
    result = CliRunner().invoke(monitor, ["watch"])
    assert (result.exit_code, result.stdout.partition(":")[0]) == (0, "Finished")


def test_a_journal_of_a_newer_format_is_told(story: Story) -> None:
    story.begin(format=ev.FORMAT + 1)
    story.owner.release()
    for command in (["complete", "latest"], ["results", "latest"]):
        result = run(*command)
        assert result.exit_code == 1
        assert f"format {ev.FORMAT + 1}" in result.stderr


# --- sweeps


def test_sweeps_tells_states_and_counts(story: Story) -> None:
    story.begin()
    story.tell(ev.TasksPlanned(5))
    story.complete("lr=1")
    story.fail("lr=2")
    story.submit(story.add("lr=3"))
    (row,) = json.loads(run("sweeps", "--json").stdout)
    assert (row["id"], row["state"], row["directory"]) == (story.state.id, "running", str(story.directory))
    assert [row[key] for key in ("completed", "failed", "active", "pending", "total")] == [1, 1, 1, 2, 5]
    text = run("sweeps").stdout
    assert story.state.id in text
    assert "running" in text
    assert run("sweeps", "--quiet").stdout == f"{story.state.id}\n"


@pytest.mark.parametrize(
    ("fails", "status", "state"),
    [(0, "finished", "finished"), (1, "finished", "failed tasks"), (1, "interrupted", "interrupted")],
)
def test_states_of_ended_sweeps(story: Story, fails: int, status: str, state: str) -> None:
    story.begin()
    for n in range(fails):
        story.fail(f"lr={n}")
    story.end(status)
    assert json.loads(run("sweeps", "--json").stdout)[0]["state"] == state


def test_a_sweep_whose_launcher_is_gone_is_told(story: Story) -> None:
    story.begin()
    story.owner.release()
    assert json.loads(run("sweeps", "--json").stdout)[0]["state"] == "launcher gone"


def test_one_unreadable_sweep_does_not_hide_the_others(story: Story) -> None:
    story.begin()
    journal = story.directory / ".hsm" / "journal.jsonl"
    journal.write_bytes(b"garbage\n" + journal.read_bytes())
    result = run("sweeps", "--json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert row["state"] == "unreadable"
    assert "journal.jsonl" in row["problem"]


def test_no_sweeps(state_home: Path) -> None:
    assert (run("sweeps").stdout, run("sweeps", "--json").stdout) == ("There are no sweeps yet.\n", "[]\n")


# --- results


def test_results_lists_the_ended_tasks(story: Story) -> None:
    story.begin()
    story.complete("lr=0.1", "name='a b'", value=0.5)
    story.fail("lr=0.2", message="bad \x1b[2J")
    story.add("lr=0.3")
    rows = json.loads(run("results", "latest", "--json").stdout)
    assert [(row["task"], row["status"], row["return_value"]) for row in rows] == [
        ("task_001", "completed", 0.5),
        ("task_002", "failed", None),
    ]
    assert rows[0]["overrides"] == {"lr": "0.1", "name": "a b"}
    text = run("results").stdout
    assert "lr=0.1 name=a b" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("best", "task"), [("max", "task_003"), ("min", "task_002")])
def test_the_best_task(story: Story, best: str, task: str) -> None:
    story.begin()
    for value in (0.5, -1, 2.5, None, "NaN", [9]):
        story.complete(f"v={value}", value=value)
    story.fail("v=99")
    assert run("results", "latest", "--best", best, "--quiet").stdout == f"{task}\n"


def test_the_best_of_several_metrics(story: Story) -> None:
    story.begin()
    story.complete("a=1", value={"acc": 0.5, "loss": 3})
    story.complete("a=2", value={"acc": 0.7, "loss": 4})
    assert run("results", "--best", "min", "--metric", "loss", "-q").stdout == "task_001\n"
    unnamed = run("results", "--best", "max")
    assert unnamed.exit_code == 1
    assert "Choose with --metric from acc, loss." in unnamed.stderr


# --- monitor watch


def test_watch_once_as_text_and_json(story: Story) -> None:
    story.begin("local", "spare")
    story.complete("lr=1")
    text = run("monitor", "watch", story.state.id[:12], "--once").stdout
    assert text.startswith("Running: 1/1 task (100%), 1 completed")
    assert "spare" in text
    now = json.loads(run("monitor", "watch", "latest", "--once", "--json").stdout)
    assert (now["status"], now["completed"]) == ("running", 1)


def test_watch_ends_with_the_sweep(story: Story) -> None:
    story.begin()
    story.fail("lr=1")
    story.end("stopped", "as many as fail_fast=1 allows")
    result = run("monitor", "watch", "latest")
    assert result.exit_code == 0
    assert result.stdout.startswith("Stopped: as many as fail_fast=1 allows: 1/1 task (100%)")


def test_watch_tells_that_the_launcher_is_gone(story: Story) -> None:
    story.begin()
    story.add("lr=1")
    story.owner.release()
    result = run("monitor", "watch", "latest")
    assert result.exit_code == 1
    assert f"hsm complete {story.state.id}" in result.stderr


# --- cancel


def test_cancel_waits_for_the_answer(story: Story) -> None:
    story.begin()
    results: list[Result] = []
    asking = threading.Thread(target=lambda: results.append(run("cancel", "latest")))
    asking.start()
    spool = Spool(story.directory / ".hsm")
    while not (commands := spool.poll()):
        asking.join(0.01)
        assert asking.is_alive(), results
    assert [command.command for command in commands] == ["cancel"]
    story.tell(ev.CommandDone("another", "cancel", False, "not this one"))
    story.tell(ev.CommandDone(commands[0].id, "cancel", True, "the sweep is ending"))
    asking.join()
    assert (results[0].exit_code, results[0].stdout) == (0, f"{story.state.id}: the sweep is ending\n")


def test_cancel_of_a_sweep_that_does_not_run(story: Story) -> None:
    story.begin()
    story.end()
    result = run("cancel", "latest")
    assert result.exit_code == 1
    assert "is not running, so there is nothing to cancel" in result.stderr
    assert not (story.directory / ".hsm" / "control").exists()


def test_cancel_does_not_wait_for_ever(story: Story) -> None:
    story.begin()
    result = run("cancel", "latest", "--wait", "0")
    assert result.exit_code == 1
    assert "did not answer within 0s" in result.stderr


def test_a_second_owner_is_not_needed_to_look(story: Story) -> None:
    """Reading commands take nothing: another launcher can still own the sweep afterwards."""
    story.begin()
    story.end()
    for command in (["sweeps"], ["results"], ["monitor", "watch", "--once"]):
        assert run(*command).exit_code == 0
    assert Owner.acquire(story.directory / ".hsm").epoch == 2
