"""rsync through the relay: real rsync on both sides, over a real connection where that matters."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from hsm_core.exceptions import NoRsync, SourceError
from hsm_core.remote.manifest import PARTIAL
from hsm_core.ssh.connection import Connection
from hsm_core.transfer import rsync
from hsm_core.transfer.mirror import MUNGED
from hsm_core.transfer.rsync import READ_ONLY, pull, push
from tests.ssh.local_shell import LocalShell, host
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome

__all__ = ["host"]

ODD = ["-rf", "#x", ";y", "lr=0.1,[a]", "a*b", "two\nlines", "it's", 'say "a"', "a\\b", "ä b", "\udcff", "$(touch x)"]
"""names that mean something to a shell, to rsync or to a reader of lines"""


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_is_asked_for_comes_home_whatever_its_name(host: LocalShell, tmp_path: Path) -> None:
    remote, into = host.home / "sweeps" / "one's", tmp_path / "incoming" / "server 1"
    for name in ODD:
        put(remote / name / name / "model.pt", os.fsencode(name))
        put(remote / "tasks" / name, b"deeper")
    put(remote / ODD[0] / "large.bin", os.urandom(1 << 20))
    put(remote / "other" / "file")
    names = [*ODD, *(f"tasks/{name}" for name in ODD), "not-there-yet"]
    moved = pull(host, str(remote), names, into)
    assert moved.complete, moved.problems
    for name in ODD:
        assert (into / name / name / "model.pt").read_bytes() == os.fsencode(name)
        assert (into / "tasks" / name).read_bytes() == b"deeper"
    assert sorted(os.listdir(into)) == sorted([*ODD, "tasks", PARTIAL])
    assert os.listdir(into / PARTIAL) == []
    again = pull(host, str(remote), names, into)
    assert again.complete
    assert again.received < moved.received - (1 << 20)
    assert not any("model.pt" in script or "lr=0.1" in script for script in host.scripts)


def test_a_file_that_grew_comes_as_another_file(host: LocalShell, tmp_path: Path) -> None:
    log = put(host.home / "R" / "0" / "train.log", os.urandom(1 << 20))
    os.utime(log, ns=(10**18, 10**18 + 123_456_789))
    pull(host, "R", ["0"], tmp_path / "in")
    here = tmp_path / "in" / "0" / "train.log"
    assert here.stat().st_mtime_ns == 10**18 + 123_456_789
    before = here.stat().st_ino
    with open(log, "ab") as file:
        file.write(b"epoch 2")
    moved = pull(host, "R", ["0"], tmp_path / "in")
    assert here.read_bytes() == log.read_bytes()
    assert here.stat().st_ino != before
    assert moved.received < 1 << 19  # what was there is not sent again


def test_links_lead_nowhere_and_only_files_come(host: LocalShell, tmp_path: Path) -> None:
    task = host.home / "R" / "0"
    put(task / "tool").chmod(0o6755)
    put(task / "secret").chmod(0o400)
    put(task / "sealed" / "f")
    (task / "sealed").chmod(0o555)
    put(task / PARTIAL / "x")
    targets = ["/etc/passwd", "../1", "tool", "loop", "."]
    for number, target in enumerate(targets):
        (task / f"link{number}").symlink_to(target)
    os.mkfifo(task / "pipe")
    moved = pull(host, "R", ["0"], tmp_path / "in")
    assert moved.complete, moved.problems
    here = tmp_path / "in" / "0"
    assert sorted(os.listdir(here)) == sorted(["tool", "secret", "sealed", *(f"link{n}" for n in range(5))])
    for number, target in enumerate(targets):
        assert os.readlink(here / f"link{number}") == MUNGED + target
    assert stat.S_IMODE((here / "tool").stat().st_mode) & 0o7700 == 0o700
    assert stat.S_IMODE((here / "secret").stat().st_mode) & 0o700 == 0o600
    assert stat.S_IMODE((here / "sealed").stat().st_mode) & 0o700 == 0o700


def test_a_host_cannot_write_through_its_links(host: LocalShell, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (host.home / "R").mkdir()
    (host.home / "R" / "0").symlink_to(outside)
    pull(host, "R", ["0"], tmp_path / "in")
    (host.home / "R" / "0").unlink()
    put(host.home / "R" / "0" / "evil")
    moved = pull(host, "R", ["0"], tmp_path / "in")
    assert os.listdir(outside) == []
    assert moved.complete
    assert (tmp_path / "in" / "0" / "evil").exists()


def test_push_brings_the_named_files_with_the_wanted_modes(host: LocalShell, tmp_path: Path) -> None:
    local = tmp_path / "project's"
    for name in ODD:
        put(local / "code" / name, os.fsencode(name))
    put(local / "not asked for")
    put(local / "run.sh").chmod(0o750)
    (local / "link").symlink_to("/etc/passwd")
    names = [*(f"code/{name}" for name in ODD), "run.sh", "link"]
    assert push(host, local, names, "in it's/place", chmod=READ_ONLY).complete
    there = host.home / "in it's" / "place"
    for name in ODD:
        assert (there / "code" / name).read_bytes() == os.fsencode(name)
        assert (there / "code" / name).stat().st_mode & 0o333 == 0
    assert sorted(os.listdir(there)) == ["code", "link", "run.sh"]
    assert os.readlink(there / "link") == "/etc/passwd"
    assert (there / "run.sh").stat().st_mode & 0o700 == 0o500
    assert there.stat().st_mode & 0o777 == 0o700

    (local / "run.sh").write_bytes(b"changed")
    assert push(host, local, names, "next", chmod=READ_ONLY, link_dest="../in it's/place").complete
    assert (host.home / "next" / "run.sh").read_bytes() == b"changed"
    for name in ODD:
        assert (host.home / "next" / "code" / name).samefile(there / "code" / name)


def test_compression_and_settings_of_the_user(
    host: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RSYNC_RSH", "false"), ("RSYNC_PARTIAL_DIR", "/tmp/x"), ("RSYNC_PROTECT_ARGS", "0")):
        monkeypatch.setenv(name, value)
    put(tmp_path / "user" / ".popt", b"rsync alias -r --dry-run\n")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    put(host.home / "R" / "0" / "f", b"all the same " * 200_000)
    moved = pull(host, "R", ["0"], tmp_path / "in", compress=True)
    assert (tmp_path / "in" / "0" / "f").stat().st_size == 2_600_000
    assert moved.received < 1 << 20


def test_the_interpreter_may_stand_anywhere(host: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / 'it\'s  "here"' / "python"
    place.parent.mkdir()
    place.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(place))
    put(host.home / "R" / "0" / "f")
    assert pull(host, "R", ["0"], tmp_path / "in").complete


def test_all_goes_over_the_one_connection(make_host: MakeHost, ssh_home: SshHome, tmp_path: Path) -> None:
    server = make_host(home="it's a $(home)", files={".bashrc": "echo hello\n"})
    ssh_home.trust(server)
    connection = Connection("server1", server.config())
    connection.open()
    try:
        local, names = tmp_path / "local", [f"tasks/{name}" for name in ODD]
        for name in names:
            put(local / name / "f", os.fsencode(name))
        put(local / "tasks" / "-rf" / "large.bin", os.urandom(5 << 20))
        assert push(connection, local, names, "base's/R").complete
        moved = pull(connection, "base's/R", names, tmp_path / "in")
        assert moved.complete, moved.problems
        for name in names:
            assert (tmp_path / "in" / name / "f").read_bytes() == os.fsencode(name)
        for path in ("tasks/-rf/large.bin",):
            assert (tmp_path / "in" / path).read_bytes() == (local / path).read_bytes()
        assert moved.received > 5 << 20
    finally:
        connection.close()
    assert server.logins() == 1


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc/passwd", "a/../../b", "a\0b"])
def test_names_that_lead_elsewhere_are_not_even_asked_for(host: LocalShell, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a file in the folder"):
        pull(host, "R", [name], tmp_path / "in")
    with pytest.raises(ValueError, match="is no name of a file in the folder"):
        push(host, tmp_path, [name], "R")
    assert host.scripts == []


def test_a_folder_that_is_not_there_is_told(host: LocalShell, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"it's on me@here:22 can't be used: .*it's") as caught:
        pull(host, "it's", ["0"], tmp_path / "in")
    assert not isinstance(caught.value, NoRsync)
    put(host.home / "file")
    with pytest.raises(SourceError, match="file/R on me@here:22 can't be used"):
        push(host, tmp_path, ["0"], "file/R")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (None, "rsync is not installed on me@here:22"),
        (
            "echo 'rsync: unrecognized option `--secluded-args`' >&2; exit 1",
            "do not get on with each other: .*unrecogn",
        ),
        ("echo 'Welcome to this host'", "do not get on with each other"),
        ("exec yes welcome", "do not get on with each other"),
        ("exec cat /dev/zero", "do not get on with each other"),
    ],
)
def test_no_usable_rsync_over_there(host: LocalShell, tmp_path: Path, program: str | None, why: str) -> None:
    path = os.environ["PATH"]
    host.have_only(tmp_path / "bin", **({} if program is None else {"rsync": f"PATH={path}; {program}"}))
    (host.home / "R").mkdir()
    with pytest.raises(NoRsync, match=why):
        pull(host, "R", ["0"], tmp_path / "in")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (None, "rsync is not installed here"),
        ("openrsync: protocol version 29", "rsync here is older than 3.1: openrsync: protocol version 29"),
        ("rsync  version 2.6.9  protocol version 29", "rsync here is older than 3.1: rsync  version 2.6.9"),
        ("rsync  version 3.0.9  protocol version 30", "older than 3.1"),
    ],
)
def test_no_usable_rsync_here(
    host: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str | None, why: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if says is not None:
        put(folder / "rsync", f"#!/bin/sh\necho '{says}'\n".encode()).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    rsync.unusable.cache_clear()
    try:
        with pytest.raises(NoRsync, match=why):
            pull(host, "R", ["0"], tmp_path / "in")
    finally:
        rsync.unusable.cache_clear()
    assert host.scripts == []
