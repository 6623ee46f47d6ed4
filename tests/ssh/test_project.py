"""Which files of a project travel to a host, and how they get there once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core.exceptions import NoRsync, SnapshotError, SourceError
from hsm_core.transfer import project as projects
from hsm_core.transfer.project import digest, files, send_project
from hsm_core.transfer.rsync import Moved
from tests.ssh.local_shell import LocalShell, host

__all__ = ["host"]


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *args], check=True)


def commit(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "m")


def names(project: Path) -> set[str]:
    return {file.name for file in files(project).files}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    for name in ("train.py", "conf/config.yaml", "data/small.csv", "tools/run.sh"):
        put(folder / name)
    (folder / "tools" / "run.sh").chmod(0o755)
    return folder


CODE = {"train.py", "conf/config.yaml", "data/small.csv", "tools/run.sh"}


@pytest.mark.parametrize("under_git", [True, False])
def test_what_is_no_part_of_the_app_does_not_travel(project: Path, under_git: bool) -> None:
    if under_git:
        commit(project)
    for name in (
        "outputs/2026-01-15/14-30-22/train.log",
        "multirun/x/0/train.log",
        "__pycache__/train.cpython-311.pyc",
        "runs/one/.hsm/journal.jsonl",
        "runs/one/0/train.log",
        "env/pyvenv.cfg",
        "env/lib/module.py",
        "conda/conda-meta/history",
        "conda/lib/module.py",
        "hsm_config.yaml",
        "jobs/hsm_config.yaml",
        "jobs/sweep.yaml",
    ):
        put(project / name)
    put(project / ".env")
    put(project / "jobs" / "more.yaml")
    found = files(project, hidden=[project / "jobs" / "sweep.yaml"])
    assert {file.name for file in found.files} == CODE | {".env", "jobs/more.yaml"}
    assert found.left_out == []
    assert [file.name for file in found.files if file.executable] == ["tools/run.sh"]


def test_git_says_what_travels_and_hsmignore_what_does_not(project: Path) -> None:
    put(project / ".gitignore", "scratch/\n*.log\n")
    put(project / "outputs" / "kept.py")
    commit(project)
    put(project / "scratch" / "x.py")
    put(project / "x.log")
    put(project / "untracked.txt")
    (project / "train.py").unlink()
    expected = (CODE - {"train.py"}) | {".gitignore", "outputs/kept.py", "untracked.txt"}
    assert names(project) == expected
    put(project / ".hsmignore", "# data\n/data/\n*.txt\n!untracked.txt\n")
    put(project / "notes.txt")
    assert names(project) == (expected - {"data/small.csv"}) | {".hsmignore"}


def test_hsmignore_without_git_keeps_out_of_folders(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "WALK_LIMIT", 10)
    for number in range(30):
        put(project / "images" / "raw" / f"{number}.png")
    put(project / ".hsmignore", "images/**\n")
    put(project / "keep" / "images.py")
    assert names(project) == CODE | {".hsmignore", "keep/images.py"}


def test_files_of_submodules_travel(project: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    put(library / "lib.py")
    commit(library)
    commit(project)
    git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor/lib")
    put(project / "vendor" / "lib" / "new.py")
    assert names(project) == CODE | {".gitmodules", "vendor/lib/lib.py", "vendor/lib/new.py"}


@pytest.mark.parametrize("under_git", [True, False])
def test_links_out_of_the_project_are_told(project: Path, under_git: bool) -> None:
    (project / "big").symlink_to("/data/imagenet")
    (project / "conf" / "up").symlink_to("../../elsewhere")
    (project / "conf" / "train.py").symlink_to("../train.py")
    (project / "same").symlink_to("conf")
    if under_git:
        commit(project)
    else:
        os.mkfifo(project / "pipe")
    found = files(project)
    assert {file.name: file.target for file in found.files if file.target} == {
        "conf/train.py": "../train.py",
        "same": "conf",
    }
    links = [
        "big is a link out of the project, to /data/imagenet",
        "conf/up is a link out of the project, to ../../elsewhere",
    ]
    assert sorted(found.left_out) == (links if under_git else [*links, "pipe is neither file nor link"])


def test_too_much_is_refused_with_the_largest_folders(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        put(project / "images" / f"{number}.png", "x" * 1000)
    monkeypatch.setattr(projects, "FILE_LIMIT", 15)
    with pytest.raises(SnapshotError, match=r"24 files, .*The largest: images \(20 KiB in 20 files\).*\.hsmignore"):
        files(project)
    monkeypatch.setattr(projects, "FILE_LIMIT", 100)
    monkeypatch.setattr(projects, "SIZE_LIMIT", 10_000)
    with pytest.raises(SnapshotError, match=r"images \(20 KiB in 20 files\)"):
        files(project)
    put(project / ".hsmignore", "images/")
    assert names(project) == CODE | {".hsmignore"}


def test_a_digest_changes_with_what_travels(project: Path) -> None:
    seen = {digest(files(project).files)}
    assert digest(files(project).files) in seen
    changes: list[Callable[[], object]] = [
        lambda: put(project / "train.py", "y"),  # of the same size
        lambda: put(project / "train.py", "longer"),
        lambda: (project / "train.py").chmod(0o755),
        lambda: (project / "train.py").rename(project / "train2.py"),
        lambda: (project / "train.py").symlink_to("train2.py"),
        lambda: os.utime(project / "train2.py", ns=(1, 1)),
    ]
    for number, change in enumerate(changes, 2):
        change()
        seen.add(digest(files(project).files))
        assert len(seen) == number


def send(host: LocalShell, project: Path) -> Path:
    found = files(project).files
    return host.home / send_project(host, "base's", project, found, digest(found))


def test_a_version_is_sent_once_and_shares_what_did_not_change(host: LocalShell, project: Path) -> None:
    put(project / "two\nlines", "odd")
    (project / "latest").symlink_to("conf/config.yaml")
    first = send(host, project)
    assert {str(p.relative_to(first)) for p in first.rglob("*") if not p.is_dir()} == CODE | {"two\nlines", "latest"}
    assert os.readlink(first / "latest") == "conf/config.yaml"
    assert (first / "train.py").stat().st_mode & 0o222 == 0
    assert (first / "tools" / "run.sh").stat().st_mode & 0o500 == 0o500
    assert first.parent.stat().st_mode & 0o077 == 0

    started = len(host.scripts)
    assert send(host, project) == first
    assert len(host.scripts) == started + 1

    put(project / "train.py", "changed")
    second = send(host, project)
    assert second != first
    assert (first / "train.py").read_text() == "x"
    assert (second / "train.py").read_text() == "changed"
    for name in ("tools/run.sh", "conf/config.yaml", "two\nlines"):
        assert (second / name).samefile(first / name)
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, second.name])


def test_what_was_sent_in_part_is_no_version(host: LocalShell, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files(project).files
    version = digest(found)
    folder = projects._key(project)
    put(host.home / "base's" / "code" / folder / f"{version}.part" / "train.py", "half")
    first = send(host, project)
    assert (first / "train.py").read_text() == "x"
    assert [path.name for path in first.parent.iterdir()] == [version]


def test_a_version_that_nobody_used_for_long_is_removed_when_another_comes(host: LocalShell, project: Path) -> None:
    versions = []
    for days in (projects.KEPT + 1, projects.KEPT - 1, 0):
        put(project / "train.py", f"unused for {days} days")
        versions.append(send(host, project))
        os.utime(versions[-1], (0, time.time() - days * 24 * 3600 - 60))
    assert [version.exists() for version in versions] == [False, True, True]


def test_two_launchers_that_send_the_same_at_once(host: LocalShell, project: Path) -> None:
    found = files(project).files
    version = digest(found)

    def overtaken(connection: LocalShell, *args: object, **options: object) -> None:
        assert send(host, project).name == version
        raise SourceError("the folder is gone")

    place = send_project(host, "base's", project, found, version, push=overtaken)  # type: ignore[arg-type]
    assert (host.home / place / "train.py").read_text() == "x"
    assert [path.name for path in (host.home / place).parent.iterdir()] == [version]


def test_another_launcher_finishes_the_same_while_ours_begins(host: LocalShell, project: Path) -> None:
    found = files(project).files

    def overtaken(connection: LocalShell, *args: object, **options: object) -> Moved:
        send(host, project)
        return Moved(False, ["--link-dest arg does not exist: x.part/../y"])

    place = send_project(host, "base's", project, found, digest(found), push=overtaken)
    assert (host.home / place / "train.py").read_text() == "x"


def test_another_launcher_finishes_the_same_at_the_last_moment(host: LocalShell, project: Path, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "mv").write_text('#!/bin/sh\n/bin/mv "$1" "$2"\nexec /bin/mv "$@"\n')
    (tmp_path / "tools" / "mv").chmod(0o755)
    host.env["PATH"] = f"{tmp_path / 'tools'}:{host.env['PATH']}"
    first = send(host, project)
    assert (first / "train.py").read_text() == "x"
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_file_that_cannot_be_read_is_named(host: LocalShell, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*files(project).files, projects.ProjectFile("conf/config.yaml/x", 1, 1, False)]
    with pytest.raises(
        SnapshotError, match=r"can't be sent to me@here:22 whole: .*conf/config.yaml/x.*Not a directory"
    ):
        send_project(host, "base", project, found, "0" * 32)
    assert not list((host.home / "base" / "code").rglob("0" * 32))


def test_what_cannot_be_made_over_there_is_told(host: LocalShell, project: Path) -> None:
    put(host.home / "base's", "a file")
    with pytest.raises(SourceError, match=r"the project can't be put on me@here:22: .*base's") as caught:
        send(host, project)
    assert not isinstance(caught.value, NoRsync)
