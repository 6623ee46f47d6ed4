"""The commands: what they print, what they refuse, and the command lines they hand over to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from hsm_core import events as ev
from hsm_core.cli import hsm
from hsm_core.cli.monitor import monitor
from hsm_core.control import Spool
from hsm_core.owner import Owner
from hsm_core.resume import resume_arguments

if TYPE_CHECKING:
    from tests.unit.conftest import Story

# Stands in for an app: shows what it was started with.
ECHO = "import json, os, sys; print(json.dumps({'argv': sys.argv[1:], 'cwd': os.getcwd()}))"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(hsm, list(arguments))


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which it may replace."""
    command = [sys.executable, "-c", "from hsm_core.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


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


# --- complete


def begin_echo(story: Story, *arguments: str) -> None:
    story.begin(argv=(sys.executable, "-c", ECHO, *arguments))


def test_complete_runs_the_recorded_command_line_where_it_was_run(story: Story, tmp_path: Path) -> None:
    old = ("hydra.sweep.dir=old", "hydra.launcher.sources=old")
    begin_echo(story, "--multirun", "lr=1,2", *old, "--config-name", "a=b")
    story.complete("lr=1")
    story.add("lr=2")
    story.end("interrupted")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ("--sources", "local:4,spare", "--retry-failed", "--tasks", "task_001:task_002", "--strategy", "random")
    done = process("complete", story.state.id, *options, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["cwd"] == str(tmp_path)
    assert seen["argv"] == [
        "--multirun",
        "lr=1,2",
        f"hydra.sweep.dir='{story.directory}'",
        "hydra.launcher.resume=true",
        "hydra.launcher.sources='local:4,spare'",
        "hydra.launcher.strategy=random",
        "hydra.launcher.retry_failed=true",
        "hydra.launcher.tasks='task_001:task_002'",
        "--config-name",
        "a=b",
    ]


def test_hydra_reads_the_resumed_command_line(tmp_path: Path) -> None:
    """Wherever flags stand between overrides, Hydra's own parser takes all of ours."""
    from hydra._internal.utils import get_args_parser

    for argv in (
        ["python", "t.py", "-m", "lr=1"],
        ["python", "t.py", "lr=1", "~x", "-m"],
        ["python", "a=b/t.py", "-m"],
        ["python", "-m", "pkg", "--config-name", "c=d", "-m", "lr=1", "-cd", "e=f"],
        ["python", "t.py", "-m", "--config-dir=x"],
    ):
        arguments = resume_arguments(argv, tmp_path / "it's ${x}", {"sources": None, "tasks": "1"})
        first = next(i for i, word in enumerate(arguments) if word in ("t.py", "a=b/t.py", "pkg"))
        read = get_args_parser().parse_args(arguments[first + 1 :])
        assert {"hydra.launcher.resume=true", "hydra.launcher.tasks='1'"} <= set(read.overrides)
        assert read.multirun


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--retry-failed runs its 1 failed task again"),
        (["--tasks", "task_001", "--retry-failed"], "--retry-failed runs its 1 failed task again"),
    ],
)
def test_complete_has_nothing_to_do(story: Story, arguments: list[str], words: str) -> None:
    begin_echo(story)
    story.complete("lr=1")
    story.fail("lr=2")
    story.end()
    result = run("complete", "latest", *arguments)
    assert (result.exit_code, words in result.stdout) == (0, True), result.output


def test_complete_of_a_sweep_that_completed(story: Story) -> None:
    begin_echo(story)
    story.complete("lr=1")
    story.end()
    result = run("complete", "latest", "--retry-failed")
    assert result.exit_code == 0
    assert result.stdout == f"{story.state.id} has nothing left to run (1 task completed).\n"


@pytest.mark.parametrize("options", [["--retry-failed"], ["--tasks", "2", "--retry-failed"]])
def test_complete_runs_failed_tasks_when_asked(story: Story, tmp_path: Path, options: list[str]) -> None:
    begin_echo(story)
    story.complete("lr=1")
    story.fail("lr=2")
    story.end()
    assert "hydra.launcher.retry_failed=true" in process("complete", "latest", *options, cwd=tmp_path).stdout


def test_a_sweep_that_did_not_end_may_have_tasks_nobody_knows(story: Story, tmp_path: Path) -> None:
    begin_echo(story)
    story.complete("lr=1")
    story.owner.release()
    assert "hydra.launcher.resume=true" in process("complete", "latest", cwd=tmp_path).stdout


def test_complete_refuses_a_running_sweep_and_says_who_holds_it(story: Story, tmp_path: Path) -> None:
    begin_echo(story)
    result = run("complete", "latest")
    assert result.exit_code == 1
    for fact in (str(os.getpid()), socket.gethostname(), "ago", f"hsm cancel {story.state.id}"):
        assert fact in result.stderr
    assert "hydra.launcher.takeover=true" in process("complete", "latest", "--takeover", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("tasks", "words"),
    [("nine", "no task name"), ("task_005:task_002", "runs backwards"), ("7:9", "has 2 tasks, none of these")],
)
def test_bad_task_ranges(story: Story, tasks: str, words: str) -> None:
    begin_echo(story)
    story.complete("lr=1")
    story.fail("lr=2")
    story.end()
    result = run("complete", "latest", "--tasks", tasks)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


# --- run


def project(folder: Path, sweep: str, app: str = ECHO) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(textwrap.dedent(app))
    (folder / "sweep.yaml").write_text(textwrap.dedent(sweep))
    return folder


GRID = """\
app: train.py
sweep: {grid: {lr: [1, 2]}}
"""


def test_run_becomes_the_app_in_a_directory_of_its_own(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", GRID)
    seen = []
    for _ in range(2):
        done = process("run", "--config", "sweep.yaml", "--sources", "local:2", "x=1", cwd=folder)
        assert done.returncode == 0, done.stderr
        seen.append(json.loads(done.stdout)["argv"])
    assert all("hydra.launcher.sources='local:2'" in argv and argv[-1] == "x=1" for argv in seen)
    directories = {part.removeprefix("hydra.sweep.dir=") for argv in seen for part in argv if "sweep.dir" in part}
    made = {str(path.relative_to(folder)) for path in (folder / "sweeps" / "outputs").iterdir()}
    assert directories == made
    assert len(made) == 2


def test_a_bad_sweep_file_is_told_before_anything_is_made(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "app: trian.py\nsweep: {grid: {lr: []}}")
    done = process("run", cwd=folder)
    assert done.returncode == 2
    assert "sweep.yaml:2: sweep.grid.lr: is empty" in done.stderr
    assert not (folder / "sweeps").exists()


def test_a_sweep_too_long_for_a_command_line_is_told(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", f"app: train.py\nsweep: {{grid: {{lr: {list(range(50_000))}}}}}")
    done = process("run", cwd=folder)
    assert done.returncode == 1
    assert "range(0,10000)" in done.stderr
    assert "Traceback" not in done.stderr


HYDRA_APP = """\
    import hydra

    @hydra.main(version_base=None)
    def main(cfg):
        return cfg.lr

    if __name__ == "__main__":
        main()
"""
HYDRA_SWEEP = """\
app: train.py
sweep:
  grid: {+lr: [1, 2]}
  paired:
    - g: {+p: ["u, v", "${lr}"], +q: ["it's", {k: "z y"}]}
"""


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", HYDRA_SWEEP, HYDRA_APP)
    before = sorted(folder.rglob("*"))
    done = process("run", "--dry-run", "--json", "--max-runs", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    assert [task["overrides"] for task in plan["tasks"]] == [
        ["+lr=1", "+p='u, v'", "+q='it\\'s'"],
        ["+lr=1", "+p='${lr}'", "+q={k:'z y'}"],
        ["+lr=2", "+p='u, v'", "+q='it\\'s'"],
    ]
    assert all(Path(task["output_dir"]).parts[-2:] == ("tasks", task["task"]) for task in plan["tasks"])
    assert [source["name"] for source in plan["sources"]] == ["local"]
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_tells_duplicates(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "app: train.py\nsweep: {grid: {+lr: [1, 1]}}", HYDRA_APP)
    done = process("run", "--dry-run", cwd=folder)
    assert (done.returncode, done.stdout.count("same as task_001")) == (0, 1), done.stderr


def test_a_dry_run_tells_a_key_that_is_not_in_the_config(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "app: train.py\nsweep: {grid: {lr: [1, 2]}}", HYDRA_APP)
    done = process("run", "--dry-run", cwd=folder)
    assert done.returncode == 1
    assert "Could not override 'lr'" in done.stdout + done.stderr


def test_an_app_that_fails_before_the_sweep_shows_its_own_traceback(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", GRID, "import nothing_of_that_name")
    done = process("run", "--dry-run", cwd=folder)
    assert done.returncode == 1
    assert "No module named 'nothing_of_that_name'" in done.stderr
    assert "ended with exit code 1 before it planned the sweep" in done.stderr


def test_a_second_owner_is_not_needed_to_look(story: Story) -> None:
    """Reading commands take nothing: another launcher can still own the sweep afterwards."""
    story.begin()
    story.end()
    for command in (["sweeps"], ["results"], ["monitor", "watch", "--once"]):
        assert run(*command).exit_code == 0
    assert Owner.acquire(story.directory / ".hsm").epoch == 2
