"""What bad input gets: a plain word on what is wrong and where, before anything starts, and nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core.override_text import quote

if TYPE_CHECKING:
    from tests.integration.conftest import App, Gate

TRAIN = """
    import os
    import hydra
    from hydra.core.config_store import ConfigStore

    if os.environ.get("HSM_SWEEP_ID") and os.environ.get("FAIL"):
        raise RuntimeError("no import today")

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def main(cfg):
        open(os.path.join(os.environ["RAN"], str(cfg.lr)), "w").close()
        return cfg.lr

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def app(app: App) -> App:
    app.write("train.py", TRAIN)
    ran = app.folder.parent / "ran"
    ran.mkdir()
    app.environment["RAN"] = str(ran)
    return app


def ran(app: App) -> list[str]:
    """Which tasks ran, ever."""
    return sorted(path.name for path in Path(app.environment["RAN"]).iterdir())


def refused(app: App, *overrides: str, code: int = 1) -> str:
    """What the launcher says to this, after which there is no sweep and nothing has run."""
    sweep = app.sweep("lr=1,2", *overrides, code=code)
    assert not (sweep.directory / ".hsm").exists()
    assert not ran(app)
    assert "Traceback" not in sweep.said
    return sweep.said


@pytest.mark.parametrize("sweeper", ["basic", "hsm"])
def test_wrong_configuration_on_the_command_line(app: App, sweeper: str) -> None:
    said = refused(
        app,
        f"hydra/sweeper={sweeper}",
        "hydra.launcher.wroker=spawn",
        "hydra.launcher.timeout=soon",
        "hydra.launcher.on_existing=overwriet",
        "hydra.launcher.compute_sources.local={type: locl, max_parallel_task: 2}",
    )
    for words in (
        "5 problems in the configuration of hsm",
        "hydra.launcher.wroker: unknown key; did you mean worker?",
        "hydra.launcher.timeout: must be a number, not the text 'soon'",
        "hydra.launcher.on_existing: must be one of",
        "hydra.launcher.compute_sources.local.type",
        "did you mean local?",
        "hydra.launcher.compute_sources.local.max_parallel_task: unknown key; did you mean max_parallel_tasks?",
    ):
        assert words in said


def test_wrong_configuration_in_the_file(app: App) -> None:
    app.write(
        "hsm_config.yaml",
        """
        compute_sources:
          local:
            type: local
            max_parallel_tasks: "4"
        compute:
          retry_atempts: 2
        """,
    )
    said = refused(app)
    assert "hsm_config.yaml:4: compute_sources.local.max_parallel_tasks: must be a whole number" in said
    assert "hsm_config.yaml:6: compute.retry_atempts: unknown key; did you mean retry_attempts?" in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra.launcher.compute.retry_atempts=2", ["hydra.launcher.compute.retry_atempts: unknown key; did you mean"]),
        ("hydra.launcher.config_file=nowhere.yaml", ["nowhere.yaml", "can't be read"]),
        ("hydra.launcher.sources=clowd", ["clowd", "local"]),
        ("hydra.launcher.strategy=round_robbin", ["round_robbin", "round_robin"]),
        ("hydra.launcher.strategy=mine.py:Mine", ["mine.py"]),
        ("+hydra.launcher.compute_sources={big:{type:hpd}}", ["big", "hpd", "hpc"]),
    ],
)
def test_wrong_words(app: App, override: str, words: list[str]) -> None:
    said = refused(app, override)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=[1,2", "no viable alternative at input '[1,2'"),
        ("lx=1,2", "Could not override 'lx'"),
        ("db=mysql,pg", "Could not override 'db'"),
        ("hydra.sweep.dri=x", "Key 'dri' not in"),
    ],
)
@pytest.mark.parametrize("sweeper", ["basic", "hsm"])
def test_overrides_that_do_not_fit(app: App, sweeper: str, override: str, words: str) -> None:
    """The words are Hydra's."""
    assert words in refused(app, f"hydra/sweeper={sweeper}", override)


def test_the_last_point_of_a_grid_does_not_fit(app: App) -> None:
    app.write("conf/db/pg.yaml", "port: 1\n")
    said = refused(app, "hydra/sweeper=hsm", "+db=pg,pg,mysql")
    assert "Could not find 'db/mysql'" in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lr=range(0,0)"], "lr has no values"),
        (["lr=choice()"], "choice"),
        (["hydra.sweeper.paired=[{lr: [1, 2], size: [1]}]"], "lr has 2, size has 1"),
        (["hydra.sweeper.paired=[{lr: []}]"], "lr has 0"),
        (["hydra.sweeper.max_runs=0"], "max_runs"),
    ],
)
def test_an_empty_or_uneven_grid(app: App, overrides: list[str], words: str) -> None:
    sweep = app.sweep("hydra/sweeper=hsm", *overrides, code=1)
    assert words in sweep.said
    assert "Traceback" not in sweep.said
    assert not sweep.directory.exists()


def test_an_app_that_cannot_be_imported_on_the_compute_side(app: App, worker: str) -> None:
    sweep = app.sweep("lr=1,2,3,4", worker, env={"FAIL": "1"}, code=1)
    assert sweep.said.count("Traceback (most recent call last)") == 1
    assert "RuntimeError: no import today" in sweep.said
    assert 'train.py", line 6, in <module>' in sweep.said
    assert "hsm complete" in sweep.said
    assert not ran(app)
    state = sweep.state
    assert state.status == "stopped"
    assert state.ended == 0


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere/out"])
def test_a_sweep_directory_that_cannot_be_made(app: App, place: str) -> None:
    app.write("file", "")
    sweep = app.sweep("lr=1,2", "hydra/sweeper=hsm", to=place, code=1)
    assert "can't be made" in sweep.said
    assert place in sweep.said
    assert "Traceback" not in sweep.said
    assert not ran(app)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("hydra.sweep.subdir=../elsewhere", "hydra.sweep.subdir=../elsewhere: its output directory would be"),
        ("hydra.sweep.subdir=/elsewhere", "/elsewhere; it must be below"),
        ("hydra.sweep.subdir=same", "hydra.sweep.subdir=same: it is the same for all tasks"),
    ],
)
def test_a_directory_for_tasks_that_none_may_have(app: App, override: str, words: str) -> None:
    assert words in refused(app, override)
    assert not (app.folder / "elsewhere").exists()


def test_a_dry_run_tells_directories_that_none_may_have(app: App) -> None:
    plan = app.sweep("lr=1,2", "hydra.sweep.subdir='../${lr}'", "hydra.launcher.dry_run=true", code=1)
    assert plan.said.count("it must be below") == 2
    assert not plan.directory.exists() or [path.name for path in plan.directory.iterdir()] == ["multirun.yaml"]


@pytest.mark.parametrize("name", ["sweep_a b", "sweep_ü", "sweep_'$(touch marker)'", "sweep_" + "x" * 240, "-dash"])
def test_a_sweep_directory_of_any_name(app: App, name: str) -> None:
    """What is no id for a sweep is a directory all the same."""
    sweep = app.sweep("lr=1", to=quote(name))
    sweep.directory = app.folder / name
    assert sweep.outcome(0).return_value == 1
    assert sweep.state.id.startswith("sweep_")
    assert not (app.folder / "marker").exists()


def times(directory: Path) -> dict[Path, int]:
    """When each file was written, beside that of the basic sweeper, which writes before it launches."""
    return {path: path.lstat().st_mtime_ns for path in directory.rglob("*") if path.name != "multirun.yaml"}


def test_an_existing_sweep_is_not_touched(app: App) -> None:
    first = app.sweep("lr=1,2")
    before = times(first.directory)
    second = app.sweep("lr=1,2", code=1)
    assert f"holds the sweep {first.state.id} already" in second.said
    assert f"hsm complete {first.state.id}" in second.said
    assert "on_existing=overwrite" in second.said
    assert times(first.directory) == before


def test_an_existing_sweep_is_replaced_when_asked(app: App) -> None:
    first = app.sweep("lr=1,2,3")
    (first.directory / "0" / "leftover").touch()
    (first.directory / "own_notes").touch()
    second = app.sweep("lr=4", "hydra.launcher.on_existing=overwrite")
    assert second.outcome(0).return_value == 4
    assert len(second.state.tasks) == 1
    names = sorted(path.name for path in second.directory.iterdir())
    assert names == [".hsm", "0", "logs", "multirun.yaml", "own_notes", "reports"]
    assert not (second.directory / "0" / "leftover").exists()
    assert (second.directory / "reports" / "results.csv").read_text().count("task_") == 1


def test_an_existing_sweep_is_gone_on_with_when_asked(app: App) -> None:
    app.sweep("lr=1,2")
    shutil.rmtree(app.environment["RAN"])
    Path(app.environment["RAN"]).mkdir()
    sweep = app.sweep("lr=2,1,3", "hydra.launcher.on_existing=resume")
    assert ran(app) == ["3"]
    assert {task: record.overrides for task, record in sweep.state.tasks.items()} == {
        0: ("lr=1",),
        1: ("lr=2",),
        2: ("lr=3",),
    }


def test_two_launchers_in_one_directory(app: App, gate: Gate) -> None:
    app.write("train.py", TRAIN.replace("open(os.path.join", f"{gate.WAIT}; open(os.path.join"))
    with app.started("lr=1") as launcher:
        gate.reached(launcher)
        refused_one = app.sweep("lr=5", code=1)
        assert "holds the sweep" in refused_one.said
        for how in ("overwrite", "resume"):
            busy = app.sweep("lr=5", f"hydra.launcher.on_existing={how}", code=1)
            assert str(launcher.pid) in busy.said
            assert "Traceback" not in busy.said
        gate.open()
        launcher.communicate()
        assert launcher.returncode == 0
    assert ran(app) == ["1"]
    assert refused_one.outcome(0).return_value == 1


def test_two_sweeps_started_in_the_same_second(app: App) -> None:
    """Each has a directory of its own name, or the second is refused: they never mix."""
    directory = "runs/${now:%Y}"
    with app.started("lr=1,2", to=directory) as one, app.started("lr=3,4", to=directory) as other:
        one.communicate()
        other.communicate()
        assert sorted([one.returncode, other.returncode]) == [0, 1]
    assert ran(app) in (["1", "2"], ["3", "4"])
