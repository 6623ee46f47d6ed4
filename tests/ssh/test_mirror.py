"""What is published of a mirror that a hostile host filled, and how changes get there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from hsm_core.exceptions import NoRoom, SourceError
from hsm_core.transfer.mirror import MUNGED, discard, publish


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep directory; its mirror is in it."""
    (tmp_path / "sweep" / ".hsm" / "incoming" / "server1").mkdir(parents=True)
    return tmp_path / "sweep"


@pytest.fixture
def mirror(sweep: Path) -> Path:
    return sweep / ".hsm" / "incoming" / "server1"


def tree(folder: Path) -> set[str]:
    """All that is below a folder, by relative names; hsm's own aside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".hsm" not in path.parts}


def test_files_appear_at_home_without_being_copied(sweep: Path, mirror: Path) -> None:
    put(mirror / "tasks" / "task_001" / "train.log", "epoch 1")
    put(mirror / "tasks" / "task_001" / ".hydra" / "config.yaml")
    (mirror / "tasks" / "task_001" / "empty").mkdir()
    put(mirror / "tasks" / "task_002" / "train.log")
    done = publish(mirror, sweep, ["tasks/task_001", "tasks/task_003"])
    assert (done.files, done.skipped) == (2, [])
    task = "tasks/task_001"
    assert tree(sweep) == {
        "tasks",
        task,
        *(f"{task}/{n}" for n in ("train.log", ".hydra", ".hydra/config.yaml", "empty")),
    }
    assert (sweep / task / "train.log").samefile(mirror / task / "train.log")
    assert publish(mirror, sweep, [task]).files == 0


def test_a_file_that_grew_is_the_new_one_at_home(sweep: Path, mirror: Path) -> None:
    log = put(mirror / "0" / "train.log", "epoch 1")
    publish(mirror, sweep, ["0"])
    put(mirror / "0" / "new", "epoch 1, epoch 2").rename(log)  # as rsync replaces it
    reader = (sweep / "0" / "train.log").open()
    assert publish(mirror, sweep, ["0"]).files == 1
    with reader:
        assert reader.read() == "epoch 1"  # it saw one version, whole
    assert (sweep / "0" / "train.log").read_text() == "epoch 1, epoch 2"
    assert tree(sweep) == {"0", "0/train.log"}


def test_what_an_earlier_attempt_left_is_replaced_and_the_rest_stays(sweep: Path, mirror: Path) -> None:
    put(sweep / "0" / "train.log", "of attempt 1")
    put(sweep / "0" / "note.txt", "mine")
    (sweep / "0" / "best").symlink_to("note.txt")
    put(mirror / "0" / "train.log", "of attempt 2")
    put(mirror / "0" / "best", "a file now")
    assert publish(mirror, sweep, ["0"]).files == 2
    assert (sweep / "0" / "train.log").read_text() == "of attempt 2"
    assert (sweep / "0" / "note.txt").read_text() == "mine"
    assert not (sweep / "0" / "best").is_symlink()


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        f"{MUNGED}/etc/passwd",
        "../other",
        "sub/../../other",
        "sub/deep/../../../other",
        "here/..",
        "../..",
        "..",
    ],
)
def test_links_out_of_the_task_are_skipped_and_told(sweep: Path, mirror: Path, target: str) -> None:
    put(mirror / "0" / "file")
    (mirror / "0" / "evil").symlink_to(MUNGED + target)
    done = publish(mirror, sweep, ["0"])
    assert done.files == 1
    assert done.skipped == [f"0/evil is a link out of the task's directory, to {target}"]
    assert tree(sweep) == {"0", "0/file"}


@pytest.mark.parametrize("target", ["file", "../file", "./../sub//deep", "evil", "..", "deep"])
def test_links_inside_the_task_are_kept(sweep: Path, mirror: Path, target: str) -> None:
    put(mirror / "0" / "file")
    put(mirror / "0" / "sub" / "deep" / "x")
    for _ in range(2):
        (mirror / "0" / "sub" / "evil").unlink(missing_ok=True)
        (mirror / "0" / "sub" / "evil").symlink_to(MUNGED + target)
        assert publish(mirror, sweep, ["0"]).skipped == []
        assert os.readlink(sweep / "0" / "sub" / "evil") == target
    (mirror / "0" / "sub" / "evil").unlink()
    (mirror / "0" / "sub" / "evil").symlink_to(f"{MUNGED}elsewhere")
    assert publish(mirror, sweep, ["0"]).files == 1
    assert os.readlink(sweep / "0" / "sub" / "evil") == "elsewhere"


def test_links_at_home_are_never_written_through(sweep: Path, mirror: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside / "kept", "kept")
    put(sweep / "1" / "here")
    (sweep / "0").symlink_to(outside)
    (sweep / "1" / "sub").symlink_to(outside)
    (sweep / "1" / "kept").symlink_to(outside / "kept")
    put(sweep / "1" / "in_the_way")
    for name in ("0/kept", "1/sub/kept", "1/kept", "1/in_the_way/file", "1/here"):
        put(mirror / name, "evil")
    done = publish(mirror, sweep, ["0", "1"])
    assert (outside / "kept").read_text() == "kept"
    assert os.listdir(outside) == ["kept"]
    assert (sweep / "1" / "kept").read_text() == "evil"
    assert sorted(line.split(" is a folder in what came")[0] for line in done.skipped) == ["0", "1/in_the_way", "1/sub"]


def test_links_in_the_mirror_are_never_followed(sweep: Path, mirror: Path, tmp_path: Path) -> None:
    put(tmp_path / "outside" / "secret")
    (mirror / "0").symlink_to(tmp_path / "outside")
    (mirror / "tasks").symlink_to(tmp_path)
    done = publish(mirror, sweep, ["0", "tasks/outside"])
    assert done.files == 0
    assert len(done.skipped) == 2
    assert tree(sweep) == set()
    discard(mirror, ["0", "tasks/outside"])
    assert (tmp_path / "outside" / "secret").exists()
    assert not (mirror / "0").is_symlink()


def test_a_folder_at_home_is_not_removed_for_a_file(sweep: Path, mirror: Path) -> None:
    put(sweep / "0" / "model" / "weights")
    put(sweep / "0" / "best" / "weights")
    put(mirror / "0" / "model")
    (mirror / "0" / "best").symlink_to(f"{MUNGED}model")
    done = publish(mirror, sweep, ["0"])
    assert sorted(done.skipped) == [
        "0/best is a link in what came, but a folder at home",
        "0/model is a file in what came, but a folder at home",
    ]
    assert (sweep / "0" / "model" / "weights").exists()


def test_only_files_folders_and_links_are_published(sweep: Path, mirror: Path) -> None:
    put(mirror / "0" / "tool").chmod(0o6755)
    put(mirror / "0" / ".hsm-partial" / "model.pt")
    os.mkfifo(mirror / "0" / "pipe")
    done = publish(mirror, sweep, ["0"])
    assert done.skipped == ["0/pipe is neither file nor folder nor link"]
    assert tree(sweep) == {"0", "0/tool"}
    assert stat.S_IMODE((sweep / "0" / "tool").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc", "a/../../b", "a//b", "a/.", "a/", "a\0b", ".hsm", ".hsm/x"]
)
def test_names_that_lead_elsewhere_are_refused(sweep: Path, mirror: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"is (no name of a file in the folder|a name of hsm itself)"):
        publish(mirror, sweep, [name])
    if not name.startswith(".hsm"):
        with pytest.raises(ValueError, match="is no name of a file in the folder"):
            discard(mirror, [name])


def test_names_of_any_kind_and_depth(sweep: Path, mirror: Path) -> None:
    names = ["-rf", "two\nlines", "\udcff", 'it\'s "$(x)"']
    deep = "/".join(["d"] * 300)
    for name in names:
        put(mirror / name / name / "f")
    put(mirror / "0" / deep / "f")
    assert publish(mirror, sweep, [*names, "0"]).files == 5
    assert (sweep / "two\nlines" / "two\nlines" / "f").exists()
    assert (sweep / "0" / deep / "f").exists()


def test_where_no_hard_links_can_be_made_files_are_copied(
    sweep: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    put(mirror / "0" / "train.log", "epoch 1")
    put(mirror / "0" / "run.sh").chmod(0o750)
    assert publish(mirror, sweep, ["0"]).files == 2
    assert publish(mirror, sweep, ["0"]).files == 0
    assert (sweep / "0" / "train.log").read_text() == "epoch 1"
    assert stat.S_IMODE((sweep / "0" / "run.sh").stat().st_mode) == 0o750
    put(mirror / "0" / "new", "epoch 1, epoch 2").rename(mirror / "0" / "train.log")
    put(sweep / "0" / ".hsm-partial", "of a launcher that was killed")
    assert publish(mirror, sweep, ["0"]).files == 1
    assert tree(sweep) == {"0", "0/train.log", "0/run.sh"}


def test_home_full_or_not_writable_says_so(sweep: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(mirror / "0" / "f")
    for code, error, words in (
        (errno.ENOSPC, NoRoom, r"The disk is full: .* are free on .*Make room"),
        (errno.EROFS, SourceError, "what came can't be put into .*sweep: Read-only file system: f"),
    ):

        def failing(*args: object, code: int = code, **options: object) -> None:
            raise OSError(code, os.strerror(code), "f")

        monkeypatch.setattr(os, "link", failing)
        with pytest.raises(error, match=words):
            publish(mirror, sweep, ["0"])


def test_a_collected_task_leaves_the_mirror_and_stays_at_home(sweep: Path, mirror: Path) -> None:
    for name in ("tasks/task_001/a/f", "tasks/task_002/f", "lone"):
        put(mirror / name)
    publish(mirror, sweep, ["tasks/task_001"])
    discard(mirror, ["tasks/task_001", "tasks/task_009", "lone", "lone/below", "nowhere/at/all"])
    assert {str(path.relative_to(mirror)) for path in mirror.rglob("*")} == {
        "tasks",
        "tasks/task_002",
        "tasks/task_002/f",
    }
    assert (sweep / "tasks" / "task_001" / "a" / "f").read_text() == "x"
