"""What is frozen of a project, and what is left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hsm_core import snapshot, work_tree
from hsm_core.exceptions import SnapshotError
from hsm_core.snapshot import take


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def frozen(project: Path, target: Path) -> set[str]:
    """The names of all that was frozen of a project."""
    copy = Path(take(project, [], target).roots[str(project)])
    return {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}


def test_code_and_configuration_only(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("train.py", "conf/config.yaml", "conf/db/a.yml", "pkg/m.py", "data.csv", "notes.txt", "model.pt"):
        put(project / name)
    assert frozen(project, tmp_path / "out") == {"train.py", "conf/config.yaml", "conf/db/a.yml", "pkg/m.py"}


def test_settings_of_hsm_stay_where_they_are_and_copies_are_nobody_elses(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("train.py", "hsm_config.yaml", "jobs/sweep.yaml", "conf/sweep.yaml"):
        put(project / name)
    taken = take(project, [project / "conf"], tmp_path / "out", hidden=[project / "jobs" / "sweep.yaml"])
    copies = [path for path in Path(taken.roots[str(project)]).rglob("*") if path.is_file()]
    assert sorted(path.name for path in copies) == ["sweep.yaml", "train.py"]
    assert {path.stat().st_mode & 0o777 for path in copies} == {0o600}


def test_environments_sweeps_and_data_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "DATA_FOLDER", 20)
    project = tmp_path / "project"
    put(project / "train.py")
    put(project / "env" / "pyvenv.cfg")
    put(project / "env" / "lib" / "module.py")
    put(project / "runs" / "one" / ".hsm" / "journal.jsonl")
    put(project / "runs" / "one" / "0" / "config.yaml")
    put(project / "multirun" / "x" / "config.yaml")
    put(project / ".cache" / "x.py")
    for number in range(30):
        put(project / "images" / f"{number}.py")
    assert frozen(project, tmp_path / "out") == {"train.py"}


def test_under_git_what_is_ignored_is_left_alone(tmp_path: Path) -> None:
    project = tmp_path / "project"
    put(project / ".gitignore", "scratch/\n")
    put(project / "train.py", "x = 1\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    put(project / "scratch" / "old.py")
    put(project / "untracked.py")
    put(project / "train.py", "x = 2\n")
    target = tmp_path / "out"
    taken = take(project, [], target)
    copy = Path(taken.roots[str(project)])
    assert (copy / "train.py").read_text() == "x = 2\n"
    assert (copy / "untracked.py").exists()
    assert not (copy / "scratch").exists()
    assert taken.dirty
    assert taken.commit is not None
    assert len(taken.commit) == 40


def test_repositories_in_the_project_are_code_of_it(tmp_path: Path) -> None:
    library, project = tmp_path / "library", tmp_path / "project"
    for repository in (library, project):
        put(repository / f"{repository.name}.py")
        put(repository / ".gitignore", "scratch/\n")
        put(repository / "scratch" / "old.py")
        for command in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"],
        ):
            subprocess.run(["git", "-C", str(repository), *command], check=True)
    add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor/library"]
    subprocess.run(["git", "-C", str(project), *add], check=True)
    subprocess.run(["git", "clone", "-q", str(library), str(project / "clone")], check=True)
    put(project / "vendor" / "library" / "untracked.py")
    put(project / "vendor" / "library" / "scratch" / "new.py")
    expected = {"project.py", "vendor/library/library.py", "vendor/library/untracked.py", "clone/library.py"}
    assert frozen(project, tmp_path / "out") == expected


def test_a_project_that_an_outer_repository_ignores_is_walked(tmp_path: Path) -> None:
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    put(tmp_path / ".gitignore", "projects/\n")
    put(tmp_path / "projects" / "one" / "train.py")
    assert work_tree.listed(tmp_path / "projects" / "one") is None


def test_a_sweep_that_git_does_not_ignore_is_no_code(tmp_path: Path) -> None:
    """Only the project's own folder is code, even where it is a sweep's directory."""
    project = tmp_path / "project"
    put(project / "train.py")
    subprocess.run(["git", "-C", str(project), "init", "-q"], check=True)
    for sweep in (project / "runs" / "one", project):
        put(sweep / ".hsm" / "snapshot" / "project" / "train.py")
        put(sweep / "0" / ".hydra" / "config.yaml")
    put(project / "runs" / "one" / "0" / "made.py")
    put(project / "runs" / "conf.yaml")
    assert frozen(project, tmp_path / "out") == {"train.py", "runs/conf.yaml"}


def test_a_snapshot_tells_what_it_holds(tmp_path: Path) -> None:
    project, script = tmp_path / "project", put(tmp_path / "elsewhere" / "run.py", "y = 1\n")
    put(project / "pkg" / "m.py", "x = 1\n")
    taken = take(project, [], tmp_path / "out", script)
    found = snapshot.read(tmp_path / "out")
    assert found == taken
    assert set(found.files) == {"project/pkg/m.py", "script/run.py"}
    assert Path(found.roots[str(script)]).read_text() == "y = 1\n"
    assert snapshot.damaged(found) == []
    same = take(project, [], tmp_path / "again", script)
    assert same.files == taken.files
    (tmp_path / "out" / "project" / "pkg" / "m.py").write_text("x = 2\n")
    (tmp_path / "out" / "script" / "run.py").unlink()
    assert snapshot.damaged(found) == ["project/pkg/m.py", "script/run.py"]
    assert snapshot.read(tmp_path / "nowhere") is None


def test_too_much_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        put(tmp_path / "project" / f"m{number}.py")
    monkeypatch.setattr(snapshot, "FILE_LIMIT", 10)
    with pytest.raises(SnapshotError, match=r"more than 10 Python and YAML files.*\.gitignore"):
        take(tmp_path / "project", [], tmp_path / "out")
    monkeypatch.setattr(snapshot, "WALK_LIMIT", 5)
    with pytest.raises(SnapshotError, match="a folder of its own, or under git"):
        take(tmp_path / "project", [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_snapshot_replaces_the_one_before(tmp_path: Path) -> None:
    project = tmp_path / "project"
    put(project / "old.py")
    take(project, [], tmp_path / "out")
    (project / "old.py").rename(project / "new.py")
    assert frozen(project, tmp_path / "out") == {"new.py"}


def test_configuration_folders_outside_the_project(tmp_path: Path) -> None:
    put(tmp_path / "project" / "train.py")
    put(tmp_path / "project" / "conf" / "a.yaml")
    put(tmp_path / "shared" / "b.yaml")
    inside, outside = tmp_path / "project" / "conf", tmp_path / "shared"
    taken = take(tmp_path / "project", [inside, outside, tmp_path / "missing"], tmp_path / "out")
    assert set(taken.roots) == {str(tmp_path / "project"), str(outside)}
    assert (Path(taken.roots[str(outside)]) / "b.yaml").exists()
