"""The same transfers by SFTP, on a real host."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote import manifest
from hsm_core.remote.manifest import PARTIAL
from hsm_core.ssh.connection import Connection
from hsm_core.testing import wait_until
from hsm_core.transfer import project as projects
from hsm_core.transfer import sftp
from hsm_core.transfer.mirror import MUNGED
from hsm_core.transfer.rsync import READ_ONLY
from hsm_core.transfer.sftp import pull
from hsm_core.transfer.sftp_push import push
from tests.testbed.sshd import SshHost

ODD = ["-rf", "#x", "lr=0.1,[a]", "a*b", "two\nlines", "it's", 'say "a"', "a\\b", "ä b", "$(touch x)"]
LARGE = 24 << 20


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    made = Connection("server1", ssh_host.config())
    made.open()
    yield made
    made.close()


def put(host: SshHost, name: str, content: bytes = b"x") -> Path:
    """A file of the host's user."""
    path = host.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    give(host, path)
    return path


def give(host: SshHost, path: Path) -> None:
    while path != host.home:
        os.chown(path, host.uid, -1, follow_symlinks=False)
        path = path.parent


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() and PARTIAL not in p.parts}


def test_what_is_asked_for_comes_home(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    for name in ODD:
        os.utime(put(ssh_host, f"R's/tasks/{name}/sub/f", name.encode()), (10**9, 10**9))
    put(ssh_host, "R's/large", os.urandom(LARGE)).chmod(0o6755)
    put(ssh_host, "R's/other")
    names = [*(f"tasks/{name}" for name in ODD), "large", "not/there/yet"]
    moved = pull(connection, "R's", names, tmp_path / "in")
    assert (moved.complete, moved.problems) == (True, [])
    assert files(tmp_path / "in") == {"large", *(f"tasks/{name}/sub/f" for name in ODD)}
    for name in ODD:
        path = tmp_path / "in" / "tasks" / name / "sub" / "f"
        assert path.read_bytes() == name.encode()
        assert path.stat().st_mtime == 10**9
    assert (tmp_path / "in" / "large").read_bytes() == (ssh_host.home / "R's" / "large").read_bytes()
    assert stat.S_IMODE((tmp_path / "in" / "large").stat().st_mode) & 0o7700 == 0o700
    assert pull(connection, "R's", names, tmp_path / "in").received == 0
    assert os.listdir(tmp_path / "in" / PARTIAL) == []


def test_a_file_that_grew_comes_as_another_file(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    log, here = put(ssh_host, "R/0/train.log", b"epoch 1"), tmp_path / "in" / "0" / "train.log"
    pull(connection, "R", ["0"], tmp_path / "in")
    before = here.stat().st_ino
    log.write_bytes(b"epoch 1, epoch 2")  # of another size: the time may be the same second
    pull(connection, "R", ["0"], tmp_path / "in")
    assert here.read_bytes() == b"epoch 1, epoch 2"
    assert here.stat().st_ino != before


def test_links_lead_nowhere_and_only_files_come(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    task = put(ssh_host, "R/0/f").parent
    targets = ["/etc/passwd", "../1", "f", "loop", "."]
    for number, target in enumerate(targets):
        (task / f"link{number}").symlink_to(target)
    os.mkfifo(task / "pipe")
    put(ssh_host, f"R/0/{PARTIAL}/x")
    for _ in range(2):
        assert pull(connection, "R", ["0"], tmp_path / "in").complete
        assert files(tmp_path / "in") == {"0/f", *(f"0/link{number}" for number in range(5))}
        for number, target in enumerate(targets):
            assert os.readlink(tmp_path / "in" / "0" / f"link{number}") == MUNGED + target
    (task / "link0").unlink()
    put(ssh_host, "R/0/link0/evil")
    assert pull(connection, "R", ["0"], tmp_path / "in").complete
    assert (tmp_path / "in" / "0" / "link0" / "evil").exists()


def test_what_cannot_be_moved_is_named_and_the_rest_comes(
    ssh_host: SshHost, connection: Connection, tmp_path: Path
) -> None:
    put(ssh_host, "R/0/f")
    secret = put(ssh_host, "R/0/secret")
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    put(ssh_host, "R/1/\udcff")
    put(ssh_host, "R/2/f")
    moved = pull(connection, "R", ["0", "1", "2"], tmp_path / "in")
    assert not moved.complete
    assert sorted(moved.problems) == ["0/secret: Permission denied", "1: its name is no UTF-8; rsync would move it"]
    assert files(tmp_path / "in") == {"0/f", "2/f"}


def test_names_that_a_host_makes_up_are_refused(
    ssh_host: SshHost, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(ssh_host, "R/0/f", b"evil")
    honest = paramiko.SFTPClient.listdir_attr

    def hostile(self: paramiko.SFTPClient, path: str = ".") -> list[paramiko.SFTPAttributes]:
        entries: list[paramiko.SFTPAttributes] = honest(self, path)
        for name in ("../../../evil", "..", "", "/evil", "sub/evil", "nul\0", "."):
            entry = honest(self, path)[0]
            entry.filename = name
            entries.append(entry)
        return list(entries)

    monkeypatch.setattr(paramiko.SFTPClient, "listdir_attr", hostile)
    moved = pull(connection, "R", ["0"], tmp_path / "in")
    assert not moved.complete
    assert len(moved.problems) == 7
    assert files(tmp_path) - {"ssh_home/.ssh/known_hosts"} == {"in/0/f"}


# WHY: paramiko asks for pieces in a thread of its own; the file may be closed before it has.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_shrinks_meanwhile_comes_later(
    ssh_host: SshHost, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(ssh_host, "R/0/f", os.urandom(3 * sftp.WINDOW))
    opened = paramiko.SFTPClient.open

    def open_and_cut(self: paramiko.SFTPClient, *args: object) -> object:
        os.truncate(path, sftp.WINDOW + 5)
        return opened(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(paramiko.SFTPClient, "open", open_and_cut)
        moved = pull(connection, "R", ["0"], tmp_path / "in")
    assert moved.problems == ["0/f: it shrank while it was read"]
    assert files(tmp_path / "in") == set()
    assert pull(connection, "R", ["0"], tmp_path / "in").complete
    assert (tmp_path / "in" / "0" / "f").read_bytes() == path.read_bytes()


# WHY: paramiko asks for pieces in a thread of its own, which may find the connection lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_came_in_part_is_gone_on_with(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    path = put(ssh_host, "R/0/f", os.urandom(LARGE))
    waiting = tmp_path / "in" / PARTIAL

    def cut_off() -> None:
        wait_until(lambda: any(p.stat().st_size > 1 << 20 for p in waiting.glob("*")), "some of the file")
        ssh_host.kill_sessions()

    cutter = threading.Thread(target=cut_off)
    cutter.start()
    try:
        with pytest.raises(Unavailable, match=r"the transfer with R on .* was cut off"):
            pull(connection, "R", ["0"], tmp_path / "in")
    finally:
        cutter.join()
    assert files(tmp_path / "in") == set()
    connection.open()
    assert pull(connection, "R", ["0"], tmp_path / "in").received < LARGE - (1 << 20)
    assert (tmp_path / "in" / "0" / "f").read_bytes() == path.read_bytes()
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, (10**9, 10**9))
    assert pull(connection, "R", ["0"], tmp_path / "in").received == LARGE


def test_a_silent_host_is_given_up(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    put(ssh_host, "R/0/f")
    with (
        pytest.raises(Unavailable, match="was cut off"),
        sftp.Session(connection, "R", 0.2) as session,
        ssh_host.freeze(),
    ):
        session.look("R")


def test_folders_that_cannot_be_used_are_told(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere on .* can't be used: No such file"):
        pull(connection, "nowhere", ["0"], tmp_path / "in")
    put(ssh_host, "file")
    with pytest.raises(SourceError, match=r"file/R on .* can't be used"):
        push(connection, tmp_path, ["0"], "file/R")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="Not a directory"):
        pull(connection, ".", ["0"], tmp_path / "file" / "in")
    for name in ("../x", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="is no name of a file in the folder"):
            pull(connection, ".", [name], tmp_path / "in")
        with pytest.raises(ValueError, match="is no name of a file in the folder"):
            push(connection, tmp_path, [name], "R")


def test_push_brings_files_and_shares_what_did_not_change(
    ssh_host: SshHost, connection: Connection, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    for name in ODD:
        (local / "code" / name).mkdir(parents=True)
        (local / "code" / name / "f").write_bytes(name.encode())
    (local / "run.sh").write_bytes(os.urandom(5 << 20))
    (local / "run.sh").chmod(0o755)
    (local / "link").symlink_to("run.sh")
    names = ["code", "run.sh", "link"]
    moved = push(connection, local, [*names, "gone"], "base's/one", chmod=READ_ONLY)
    assert moved.problems == ["gone: it has vanished"]
    first = ssh_host.home / "base's" / "one"
    assert files(first) == files(local)
    assert (first / "run.sh").read_bytes() == (local / "run.sh").read_bytes()
    assert stat.S_IMODE((first / "run.sh").stat().st_mode) == 0o500
    assert stat.S_IMODE((first / "code" / "-rf" / "f").stat().st_mode) == 0o400
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert not (first / PARTIAL).exists()

    before = (first / "run.sh").stat().st_ino
    assert push(connection, local, names, "base's/one", chmod=READ_ONLY).complete
    assert (first / "run.sh").stat().st_ino == before

    (local / "code" / "-rf" / "f").write_bytes(b"changed")
    assert push(connection, local, names, "base's/two", chmod=READ_ONLY, link_dest="../one").complete
    second = ssh_host.home / "base's" / "two"
    assert files(second) == files(local)
    assert (second / "code" / "-rf" / "f").read_bytes() == b"changed"
    assert (first / "code" / "-rf" / "f").read_bytes() == b"-rf"
    for name in ODD[1:]:
        assert (second / "code" / name / "f").samefile(first / "code" / name / "f")


def test_a_push_that_was_cut_off_goes_on(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(LARGE))
    status = (tmp_path / "f").stat()
    begun = put(ssh_host, f"R/{PARTIAL}/{sftp.partial_name('f', LARGE, int(status.st_mtime))}", b"")
    begun.write_bytes((tmp_path / "f").read_bytes()[: LARGE // 2])
    inode = begun.stat().st_ino
    assert push(connection, tmp_path, ["f"], "R").complete
    assert (ssh_host.home / "R" / "f").read_bytes() == (tmp_path / "f").read_bytes()
    assert (ssh_host.home / "R" / "f").stat().st_ino == inode


def test_a_project_and_what_a_task_left(ssh_host: SshHost, connection: Connection, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "conf").mkdir(parents=True)
    (project / "train.py").write_text("x")
    (project / "conf" / "config.yaml").write_text("x")
    found = projects.files(project).files
    place = projects.send_project(connection, "base", project, found, projects.digest(found), push=push)
    assert files(ssh_host.home / place) == {"train.py", "conf/config.yaml"}
    manifest.write(str(ssh_host.home / place), str(tmp_path / "m"))
    assert pull(connection, os.path.dirname(place), [os.path.basename(place)], tmp_path / "in").complete
    assert manifest.check(tmp_path / "m", tmp_path / "in" / os.path.basename(place)) == []
