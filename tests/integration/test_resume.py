"""A sweep is gone on with by what its points are; what changed since is refused, or used and said so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core import snapshot
from hsm_core.task import TaskState
from tests.integration.test_frozen import git

if TYPE_CHECKING:
    from hsm_core.state import SweepState
    from tests.integration.conftest import App, Finished, Sweep

TRAIN = """
import hydra

FACTOR = 10

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    if cfg.x == cfg.bad:
        raise ValueError(f"bad point {cfg.x}")
    return [cfg.x * FACTOR, cfg.lr]

if __name__ == "__main__":
    main()
"""
CONFIG = """
x: 0
y: 0
bad: null
lr: 0.1
token: very-secret
"""
RESUME = "hydra.launcher.resume=true"
HSM = ("-m", "hsm_core")


@pytest.fixture
def train(app: App) -> App:
    app.write("train.py", TRAIN)
    app.write("conf/config.yaml", CONFIG)
    return app


def complete(app: App, *options: str, code: int = 0, cwd: Path | None = None) -> str:
    """What `hsm complete` and the launcher it becomes say; the sweep is the one in `out`."""
    done = app.run("complete", str(app.folder / "out"), *options, program=HSM, code=code, cwd=cwd)
    return done.stdout + done.stderr


def points(state: SweepState) -> dict[int, str]:
    """Each task's number and the first of its overrides."""
    return {index: task.overrides[0] for index, task in state.tasks.items()}


def counts(sweep: Sweep) -> tuple[int, int, int]:
    """Tasks that completed, failed, and neither."""
    counted = sweep.state.counts
    completed, failed = counted[TaskState.COMPLETED], counted[TaskState.FAILED]
    return completed, failed, len(sweep.state.tasks) - completed - failed


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def results(sweep: Sweep) -> dict[int, dict[str, tuple[bytes, int]]]:
    """The files of every completed task."""
    done = [index for index, task in sweep.state.tasks.items() if task.state is TaskState.COMPLETED]
    return {index: files(sweep.directory / str(index)) for index in done}


# --- points


@pytest.mark.parametrize("sweeper", ["basic", "hsm"])
def test_another_grid_adds_points_and_touches_none(train: App, sweeper: str) -> None:
    first = train.sweep(f"hydra/sweeper={sweeper}", "x=2,4")
    kept = results(first)
    assert set(kept) == {0, 1}
    wider = train.sweep(f"hydra/sweeper={sweeper}", "x=range(1,5)", RESUME)
    assert points(wider.state) == {0: "x=2", 1: "x=4", 2: "x=1", 3: "x=3"}
    assert counts(wider) == (4, 0, 0)
    assert "2 tasks to run, 2 completed kept" in wider.said
    now = results(wider)
    assert {index: now[index] for index in kept} == kept
    other = train.sweep(f"hydra/sweeper={sweeper}", "x=4,5", "hydra.launcher.on_existing=resume")
    assert "1 task to run, 1 completed kept, 3 known tasks not part of this command line" in other.said
    assert points(other.state) == {**points(wider.state), 4: "x=5"}
    assert {index: results(other)[index] for index in now} == now
    assert other.outcome(4).return_value == [50, 0.1]


def test_a_dry_run_shows_what_a_resume_would_do(train: App) -> None:
    sweep = train.sweep("x=2,4", "bad=4", code=1)
    before = files(sweep.directory / ".hsm")
    dry = "hydra.launcher.dry_run=true"
    lines = train.sweep("x=range(2,5)", "bad=4", RESUME, dry).done.stdout.splitlines()
    assert lines[1:] == [
        f"task_001 (completed): x=2 bad=4 -> {sweep.directory}/0",
        f"task_003: x=3 bad=4 -> {sweep.directory}/2",
        f"task_002 (failed): x=4 bad=4 -> {sweep.directory}/1",
        f"3 tasks in {sweep.directory}; nothing was run",
    ]
    assert f"hsm complete {sweep.state.id}" in train.sweep("x=2", dry, code=1).said
    train.write("conf/config.yaml", CONFIG.replace("0.1", "0.2"))
    assert "recorded one:\n  lr: changed\n" in train.sweep("x=2", RESUME, dry, code=1).said
    assert files(sweep.directory / ".hsm") == before


def test_paired_lists_and_the_limit_of_runs(train: App) -> None:
    pairs = "hydra.sweeper.paired=[{x: [1, 3], y: [10, 30]}]"
    train.sweep("hydra/sweeper=hsm", pairs, "hydra.sweeper.max_runs=1")
    wider = "hydra.sweeper.paired=[{x: [3, 2, 1], y: [30, 20, 10]}]"
    sweep = train.sweep("hydra/sweeper=hsm", wider, "hydra.sweeper.max_runs=2", RESUME)
    assert {i: t.overrides for i, t in sweep.state.tasks.items()} == {
        0: ("x=1", "y=10"),
        1: ("x=3", "y=30"),
        2: ("x=2", "y=20"),
    }
    assert counts(sweep) == (3, 0, 0)


def test_complete_goes_on_with_the_widest_command_line(train: App) -> None:
    """Also when it was only a resumed one that came to no end, and whatever the current folder is."""
    train.sweep("x=range(2)")
    begun = train.sweep("x=range(5)", RESUME, "hydra.launcher.tasks='3'")
    assert counts(begun) == (3, 0, 2)
    narrow = train.sweep("x=1", RESUME)
    assert counts(narrow) == (3, 0, 2)
    kept = results(narrow)
    said = complete(train, cwd=train.folder.parent)
    assert "3 completed tasks kept, 2 to run" in said
    assert counts(begun) == (5, 0, 0)
    assert {index: results(begun)[index] for index in kept} == kept
    assert "nothing left to run (5 tasks completed)" in complete(train)


def test_failed_tasks_of_a_wider_grid_stay_failed(train: App) -> None:
    train.sweep("x=1,2", "bad=2", code=1)
    narrow = train.sweep("x=1", "bad=2", RESUME, "hydra.launcher.retry_failed=true")
    assert counts(narrow) == (1, 1, 0)
    said = complete(train, "--retry-failed", "--tasks", "1:1")
    assert "has nothing left to run" in said
    said = complete(train, "--retry-failed", "--tasks", "2", code=1)
    assert "1 completed task kept, 1 to run" in said
    assert counts(narrow) == (1, 1, 0)
    attempt = narrow.state.tasks[1].attempt
    assert attempt is not None
    assert attempt.number == 2


# --- configuration


def test_a_changed_configuration_is_refused_with_its_keys(train: App) -> None:
    sweep = train.sweep("x=range(3)", "hydra.launcher.tasks='1:2'")
    record = sweep.directory / ".hsm" / "payload" / "config.json"
    assert "very-secret" not in record.read_text()
    assert oct(record.stat().st_mode & 0o777) == "0o600"
    train.write("conf/config.yaml", CONFIG.replace("0.1", "0.2").replace("very", "more").replace("y: 0", "z: {a: 1}"))
    before = files(sweep.directory)

    def refused(said: str) -> None:
        assert "lr: changed" in said
        assert "token: changed" in said
        assert "y: removed" in said
        assert "z.a: added" in said
        assert "x: " not in said
        assert "--accept-config-change" in said
        assert "secret" not in said
        assert files(sweep.directory) == before

    refused(complete(train, code=1))
    for sweeper in ("basic", "hsm"):
        refused(train.sweep("x=range(3)", f"hydra/sweeper={sweeper}", RESUME, code=1).said)

    said = complete(train, "--accept-config-change")
    assert "The configuration changed and was accepted for what is left: lr: changed" in said
    assert [sweep.outcome(task).return_value for task in range(3)] == [[0, 0.1], [10, 0.1], [20, 0.2]]
    more = train.sweep("x=range(4)", RESUME)
    assert "accepted" not in more.said, "the accepted configuration is the recorded one now"
    assert more.outcome(3).return_value == [30, 0.2]


def test_what_may_differ_between_launches(train: App) -> None:
    """Comments, values of the environment, moments, what is under hydra, and overrides that make other points."""
    text = f"{CONFIG}home: ${{oc.env:WHERE}}\nbegun: ${{now:%f}}\nname: ${{hydra:job.name}}\n"
    train.write("conf/config.yaml", text)
    train.sweep("x=1,2", env={"WHERE": "here"})
    train.write("conf/config.yaml", f"# new\n{text}")
    there = {"WHERE": "there"}
    changed = train.sweep("x=1,2", "hydra.job.chdir=true", "hydra.launcher.sources='local:1'", RESUME, env=there)
    assert "2 completed kept" in changed.said
    others = train.sweep("x=1,2", "lr=3", "+new=1", RESUME, env=there)
    assert "2 tasks to run, 2 known tasks not part" in others.said
    assert others.outcome(3).return_value == [20, 3]


def test_a_changed_option_of_a_group_is_refused_once_a_point_was_made_with_it(train: App) -> None:
    train.write("conf/db/a.yaml", "size: 1\n")
    train.write("conf/db/b.yaml", "size: 2\n")
    train.write("conf/db/c.yaml", "size: 3\n")
    train.sweep("+db=a,b", "x=1")
    train.write("conf/db/c.yaml", "size: 30\n")
    train.write("conf/db/d.yaml", "size: 4\n")
    wider = train.sweep("+db=a,b,c,d", "x=1", RESUME)
    assert counts(wider) == (4, 0, 0)
    train.write("conf/db/b.yaml", "size: 2\nnew: 1\n")
    refused = train.sweep("+db=a,b,c,d", "x=1,2", RESUME, code=1)
    assert "db.new with +db=b: added" in refused.said or "new with +db=b: added" in refused.said
    assert "size" not in refused.said
    accept = "hydra.launcher.accept_config_change=true"
    assert counts(train.sweep("+db=a,b,c,d", "x=1,2", RESUME, accept)) == (8, 0, 0)
    assert counts(train.sweep("+db=a,b,c,d", "x=1,2", RESUME)) == (8, 0, 0)


def test_a_configuration_that_no_longer_composes_is_refused(train: App) -> None:
    sweep = train.sweep("x=1", "lr=2")
    train.write("conf/config.yaml", CONFIG.replace("lr: 0.1\n", ""))
    before = files(sweep.directory)
    said = train.sweep("x=1,2", RESUME, code=1).said
    assert "can't be composed any more" in said
    assert "Key 'lr' is not in struct" in said
    assert files(sweep.directory) == before


def test_a_directory_that_holds_a_sweep_is_left_as_it_is(train: App) -> None:
    sweep = train.sweep("x=1")
    before = files(sweep.directory)
    said = train.sweep("x=1,2", code=1).said
    assert f"hsm complete {sweep.state.id}" in said
    assert files(sweep.directory) == before


# --- code


def test_a_mended_bug_and_the_way_back(train: App) -> None:
    git(train.folder, "init", "-q")
    git(train.folder, "add", ".")
    git(train.folder, "commit", "-q", "-m", "first")
    commits = [git(train.folder, "rev-parse", "HEAD")[:10]]
    sweep = train.sweep("x=1,2,3", "bad=2", code=1)
    kept = results(sweep)
    frozen = files(sweep.directory / ".hsm" / "snapshot")
    mended = TRAIN.replace('raise ValueError(f"bad point {cfg.x}")', "return -1")
    train.write("train.py", mended)
    train.write("conf/config.yaml", CONFIG.replace("0.1", "0.2"))
    git(train.folder, "commit", "-qam", "mended")
    commits.append(git(train.folder, "rev-parse", "HEAD")[:10])
    train.write("unused.py", "")

    said = complete(train, "--retry-failed", "--original-code", code=1)
    assert "What is left runs with code and configuration of the sweep's start" in said
    assert counts(sweep) == (2, 1, 0)
    assert "bad point 2" in sweep.outcome(1).message

    said = complete(train, "--retry-failed", "--accept-config-change")
    assert f"in 3 files: conf/config.yaml, train.py, unused.py (commit {' -> '.join(commits)})" in said
    assert "What is left runs the new code" in said
    assert counts(sweep) == (3, 0, 0)
    assert sweep.outcome(1).return_value == -1
    now = results(sweep)
    assert {index: now[index] for index in kept} == kept
    assert files(sweep.directory / ".hsm" / "snapshot") == frozen

    back = train.sweep("x=4,5", "bad=4", RESUME, "hydra.launcher.original_code=true", code=1)
    assert "What is left runs that of the sweep's start" in back.said
    assert back.outcome(4).return_value == [50, 0.1], "code and configuration are the first ones"
    assert "lr: changed" in train.sweep("x=6", RESUME, code=1).said, "the first configuration is the recorded one again"


def test_the_same_code_is_kept_once(train: App) -> None:
    sweep = train.sweep("x=1")
    hsm = sweep.directory / ".hsm"
    train.sweep("x=2", RESUME)
    assert [path.name for path in hsm.glob("snapshot*")] == ["snapshot"]
    for written in hsm.glob("payload*/payload.json"):
        copies = json.loads(written.read_text())["frozen"].values()
        assert all((written.parent / copy).exists() for copy in copies), "what its tasks read is frozen"
    train.write("train.py", TRAIN.replace("FACTOR = 10", "FACTOR = 100"))
    changed = train.sweep("x=3", RESUME)
    assert "in 1 file: train.py. What is left runs the new code" in changed.said
    again = train.sweep("x=4", RESUME)
    assert "The code differs" not in again.said, "it is the code of the last launcher"
    assert [again.outcome(task).return_value[0] for task in range(4)] == [10, 20, 300, 400]
    assert sorted(path.name for path in hsm.glob("snapshot*")) == ["snapshot", "snapshot.3"]
    assert sorted(path.name for path in hsm.glob("payload*")) == ["payload", "payload.2", "payload.3", "payload.4"]


def test_the_first_code_must_be_there_as_it_was(train: App) -> None:
    sweep = train.sweep("x=1,2", "bad=2", code=1)
    moved = sweep.directory.rename(train.folder / "moved")
    said = train.run("complete", str(moved), "--retry-failed", "--original-code", program=HSM, code=1).stderr
    assert f"the sweep moved from {sweep.directory} to {moved}" in said
    moved.rename(sweep.directory)
    first = sweep.directory / ".hsm" / "snapshot"
    taken = snapshot.read(first)
    assert taken is not None
    (first / "project" / "train.py").write_text("")
    assert snapshot.damaged(taken) == ["project/train.py"]
    said = complete(train, "--retry-failed", "--original-code", code=1)
    assert "snapshot/project/train.py is gone or changed" in said
    shutil.rmtree(first)
    assert "snapshot/manifest.json is gone" in complete(train, "--retry-failed", "--original-code", code=1)
    said = complete(train, "--retry-failed", code=1)
    assert "Whether the code changed can't be told" in said
    assert counts(sweep) == (1, 1, 0)
    journal = (sweep.directory / ".hsm" / "journal.jsonl").read_text()
    epochs = [line["epoch"] for line in map(json.loads, journal.splitlines()) if line["event"] == "sweep_resumed"]
    assert len(epochs) == 1, "what was refused is not in the journal"


def test_an_app_that_was_moved(train: App) -> None:
    sweep = train.sweep("x=range(3)", "hydra.launcher.tasks='1'")
    place = train.folder.parent / "new place"
    (train.folder / "train.py").rename(train.folder / "moved.py")
    said = complete(train, code=1)
    assert f"the sweep's app {train.folder / 'train.py'} is gone" in said
    assert "hydra.launcher.resume=true" in said
    shutil.copytree(train.folder / "conf", place / "conf")
    (train.folder / "moved.py").rename(place / "train.py")
    options = ["-m", "hydra/launcher=hsm", f"hydra.sweep.dir={sweep.directory}", "x=range(3)", RESUME]
    done: Finished = train.run(*options, cwd=place)
    assert "The code differs" not in done.stderr
    assert counts(sweep) == (3, 0, 0)
    shutil.rmtree(place)
    train.run(*options, program=("-c", "pass"))
    assert "nothing left to run" in complete(train)


# --- sweepers that choose their points

OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.n_jobs=2", "lr=interval(0,1)", "hydra.sweeper.direction=maximize")


@pytest.fixture
def scalar(train: App) -> App:
    """The app returns one number."""
    train.write("train.py", TRAIN.replace("return [cfg.x * FACTOR, cfg.lr]", "return cfg.lr"))
    return train


def test_optuna_with_a_seed_is_answered_from_the_records(scalar: App) -> None:
    """More trials than the sampler draws at random, so that its later points depend on what it is told."""
    seeded = (*OPTUNA, "hydra.sweeper.sampler.seed=7")
    first = scalar.sweep(*seeded, "hydra.sweeper.n_trials=12")
    kept = results(first)
    assert set(kept) == set(range(12))
    more = scalar.sweep(*seeded, "hydra.sweeper.n_trials=14", RESUME)
    assert "with seed 7 suggests the same points" in more.said
    now = results(more)
    assert set(now) == set(range(14))
    assert {index: now[index] for index in kept} == kept
    assert not {i for i, task in more.state.tasks.items() if task.attempt is None or task.attempt.number != 1}
    unseeded = scalar.sweep(*OPTUNA, "hydra.sweeper.n_trials=1", RESUME)
    assert "Without a seed it suggests other points: 1 new tasks" in unseeded.said
    assert "14 known tasks did not come up again" in unseeded.said
    assert counts(unseeded) == (15, 0, 0)
    refused = scalar.sweep(*seeded, RESUME, "hydra.launcher.tasks='1'", code=1)
    assert "OptunaSweeper chooses its points itself" in refused.said


def test_optuna_with_a_storage_goes_on_with_its_study(scalar: App) -> None:
    stored = (*OPTUNA, "hydra.sweeper.storage='sqlite:///study.db'", "hydra.sweeper.study_name=mine")
    first = scalar.sweep(*stored, "hydra.sweeper.n_trials=2")
    kept = results(first)
    more = scalar.sweep(*stored, "hydra.sweeper.n_trials=3", RESUME)
    assert "goes on with its study 'mine': 3 trials more" in more.said
    assert "sqlite" not in next(line for line in more.said.splitlines() if "goes on with" in line)
    assert counts(more) == (5, 0, 0)
    assert {index: results(more)[index] for index in kept} == kept
