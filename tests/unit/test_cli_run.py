"""`hsm run` and `hsm complete`: what they refuse, and the command lines they become."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from hsm_core.cli import hsm
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
    plan, echo = done.stdout.splitlines()
    assert plan == f"{story.state.id}: 1 completed task kept, 1 to run"
    seen = json.loads(echo)
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
    - g: {+p: ["u, v", null], +q: ["it's", {k: "z y"}]}
"""


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", HYDRA_SWEEP, HYDRA_APP)
    before = sorted(folder.rglob("*"))
    done = process("run", "--dry-run", "--json", "--max-runs", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    assert [task["overrides"] for task in plan["tasks"]] == [
        ["+lr=1", "+p='u, v'", "+q='it\\'s'"],
        ["+lr=1", "+p=null", "+q={k:'z y'}"],
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
