"""Transfers in bad times: files that change, killed processes, lost connections, full disks, hostile hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hsm_core.exceptions import NoRoom, NoRsync, SourceError, Unavailable
from hsm_core.remote.manifest import PARTIAL
from hsm_core.ssh.connection import Connection
from hsm_core.testing import wait_until
from hsm_core.transfer import rsync
from hsm_core.transfer.rsync import pull, push
from tests.ssh.local_shell import LocalProgram, LocalShell, host
from tests.testbed.sshd import SshHost

__all__ = ["host"]

LARGE = 24 << 20
"""bytes of a file that takes long enough to be cut off in the middle"""


@pytest.fixture
def large(host: LocalShell) -> Path:
    path = host.home / "R" / "0" / "sub" / "model.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root: a small disk is a tmpfs to be mounted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def ours() -> list[psutil.Process]:
    """The rsyncs that this process started and that still run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if process.name() == "rsync" and process.status() != psutil.STATUS_ZOMBIE and _is_ours(process):
                found.append(process)
    return found


def _is_ours(process: psutil.Process) -> bool:
    # The tests' hosts come from this process too, but have users of their own.
    return process.uids().real == os.getuid() and os.getpid() in [parent.pid for parent in process.parents()]


def after(count: int, action: Callable[[LocalProgram], object]) -> Callable[[LocalProgram, int], None]:
    """Watches a program, and acts once it has printed so many bytes."""
    seen = 0

    def watch(program: LocalProgram, more: int) -> None:
        nonlocal seen
        before, seen = seen, seen + more
        if before < count <= seen:
            action(program)

    return watch


def test_a_lost_connection_costs_only_what_was_on_its_way(host: LocalShell, large: Path, tmp_path: Path) -> None:
    host.watch = after(LARGE * 3 // 4, lambda program: program.process.kill())
    with pytest.raises(Unavailable, match="the transfer with R on me@here:22 was cut off"):
        pull(host, "R", ["0"], tmp_path / "in")
    assert not (tmp_path / "in" / "0" / "sub" / "model.pt").exists()
    assert ours() == []
    moved = pull(host, "R", ["0"], tmp_path / "in")
    assert moved.complete
    assert moved.received < LARGE // 2
    assert (tmp_path / "in" / "0" / "sub" / "model.pt").read_bytes() == large.read_bytes()
    assert os.listdir(tmp_path / "in" / "0" / "sub") == ["model.pt"]


def test_a_real_connection_that_breaks(ssh_host: SshHost, tmp_path: Path) -> None:
    connection = Connection("server1", ssh_host.config())
    connection.open()
    path = ssh_host.home / "R" / "0" / "model.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(LARGE))
    for place in (path.parent.parent, path.parent, path):
        os.chown(place, ssh_host.uid, -1)
    pieces = tmp_path / "in" / PARTIAL

    def cut_off() -> None:
        wait_until(lambda: any(piece.stat().st_size for piece in pieces.glob("*/model.pt*")), "some of the file")
        ssh_host.kill_sessions()

    cutter = threading.Thread(target=cut_off)
    cutter.start()
    try:
        with pytest.raises(Unavailable):
            pull(connection, "R", ["0"], tmp_path / "in")
        cutter.join()
        with pytest.raises(Unavailable):
            pull(connection, "R", ["0"], tmp_path / "in")
        connection.open()
        assert pull(connection, "R", ["0"], tmp_path / "in").complete
    finally:
        cutter.join()
        connection.close()
    assert (tmp_path / "in" / "0" / "model.pt").read_bytes() == path.read_bytes()
    assert ours() == []


def test_rsync_here_is_killed(host: LocalShell, large: Path, tmp_path: Path) -> None:
    def kill(program: LocalProgram) -> None:
        for process in ours():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends with the one before
                process.kill()

    host.watch = after(LARGE // 2, kill)
    with pytest.raises(Unavailable, match=r"was cut off \(rsync: -9\)"):
        pull(host, "R", ["0"], tmp_path / "in")
    left = tmp_path / "in" / PARTIAL / "1-of-a-launcher-that-was-killed"
    left.mkdir()
    (left / "model.pt.Ab12Cd").write_bytes(b"half")
    assert pull(host, "R", ["0"], tmp_path / "in").complete
    assert (tmp_path / "in" / "0" / "sub" / "model.pt").read_bytes() == large.read_bytes()
    assert os.listdir(tmp_path / "in" / PARTIAL) == []


def test_an_interrupt_leaves_nothing_running(host: LocalShell, large: Path, tmp_path: Path) -> None:
    host.watch = after(LARGE // 2, lambda program: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        pull(host, "R", ["0"], tmp_path / "in")
    assert ours() == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hsm-rsync")]
    assert pull(host, "R", ["0"], tmp_path / "in").received < LARGE * 3 // 4


def test_a_connection_that_can_start_nothing(host: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(script: str) -> LocalProgram:
        raise Unavailable("not connected")

    monkeypatch.setattr(host, "run", refused)
    with pytest.raises(Unavailable, match="not connected"):
        pull(host, "R", ["0"], tmp_path / "in")
    assert ours() == []


def test_files_that_change_and_vanish_meanwhile_are_normal(host: LocalShell, tmp_path: Path) -> None:
    task = host.home / "R" / "0"
    task.mkdir(parents=True)
    script = """
    i=0
    while [ ! -e stop ]; do
      i=$((i + 1))
      echo "epoch $i" >> train.log
      head -c 100000 /dev/zero > "ckpt_$i" && rm -f "ckpt_$((i - 2))"
      head -c $((i % 7 * 10000)) /dev/zero > shrinks
    done
    """
    writer = subprocess.Popen(["/bin/sh", "-c", script], cwd=task)
    try:
        wait_until((task / "shrinks").exists, "the first files")
        for _ in range(8):
            pull(host, "R", ["0"], tmp_path / "in")
    finally:
        (task / "stop").touch()
        writer.wait()
    assert pull(host, "R", ["0"], tmp_path / "in").complete
    for path in task.iterdir():
        assert (tmp_path / "in" / "0" / path.name).read_bytes() == path.read_bytes()


def test_ten_thousand_files_in_one_go(host: LocalShell, tmp_path: Path) -> None:
    for folder in range(100):
        (host.home / "R" / "0" / str(folder)).mkdir(parents=True)
        for name in range(100):
            (host.home / "R" / "0" / str(folder) / str(name)).write_bytes(b"%d" % name)
    assert pull(host, "R", ["0"], tmp_path / "in").complete
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "in")) == 10_000
    assert len(host.scripts) == 1


def test_home_is_full(host: LocalShell, large: Path, small_disk: Path) -> None:
    with pytest.raises(NoRoom, match=r"The disk is full: .* of 4.0 MiB are free on .*/disk. Make room"):
        pull(host, "R", ["0"], small_disk / "in")
    large.write_bytes(b"smaller")
    assert pull(host, "R", ["0"], small_disk / "in").complete


def test_the_host_is_full(host: LocalShell, tmp_path: Path, small_disk: Path) -> None:
    host.home = small_disk
    (tmp_path / "model.pt").write_bytes(os.urandom(LARGE))
    with pytest.raises(NoRoom, match="The disk is full: R on me@here:22"):
        push(host, tmp_path, ["model.pt"], "R")


def test_home_cannot_be_written_to(host: LocalShell, large: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"Not a directory: .*file/in"):
        pull(host, "R", ["0"], tmp_path / "file" / "in")
    (tmp_path / "in" / "0").mkdir(parents=True)
    (tmp_path / "in" / "0" / "sub").write_text("in the way")
    assert pull(host, "R", ["0"], tmp_path / "in").complete


def test_what_cannot_be_read_over_there_is_named(ssh_host: SshHost, tmp_path: Path) -> None:
    task = ssh_host.home / "R" / "0"
    task.mkdir(parents=True)
    (task / "of somebody else").write_bytes(b"x")
    (task / "of somebody else").chmod(0o600)
    (task / "train.log").write_bytes(b"x")
    connection = Connection("server1", ssh_host.config())
    connection.open()
    try:
        moved = pull(connection, "R", ["0"], tmp_path / "in")
    finally:
        connection.close()
    assert not moved.complete
    assert len(moved.problems) == 1
    assert "of somebody else" in moved.problems[0]
    assert "Permission denied" in moved.problems[0]
    assert (tmp_path / "in" / "0" / "train.log").exists()


def test_a_silent_host_is_given_up(host: LocalShell, tmp_path: Path) -> None:
    path = os.environ["PATH"]
    host.have_only(tmp_path / "bin", rsync=f"PATH={path}; exec sleep 1000")
    (host.home / "R").mkdir()
    with pytest.raises(Unavailable, match="timeout after 1 seconds"):
        pull(host, "R", ["0"], tmp_path / "in", timeout=1.0)
    assert ours() == []


def test_a_flood_of_messages_is_cut(host: LocalShell, tmp_path: Path) -> None:
    path = os.environ["PATH"]
    host.have_only(
        tmp_path / "bin", rsync=f"PATH={path}; printf '\\33]0;evil\\7' >&2; yes evil | head -c 5000000 >&2; exit 1"
    )
    (host.home / "R").mkdir()
    with pytest.raises(NoRsync) as caught:
        pull(host, "R", ["0"], tmp_path / "in")
    assert len(str(caught.value)) < 1000
    assert "\33" not in str(caught.value)


def test_only_the_first_problems_are_told(host: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "SHOWN", 3)
    for number in range(10):
        (host.home / "R" / "0" / str(number)).mkdir(parents=True)
        (host.home / "R" / "0" / str(number) / "f").write_bytes(b"x")
        (tmp_path / "in" / "0" / str(number) / "f" / "in the way").mkdir(parents=True)
    moved = pull(host, "R", ["0"], tmp_path / "in")
    assert not moved.complete
    assert len(moved.problems) == 3
