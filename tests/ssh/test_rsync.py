"""rsync through the relay: real rsync on both sides, a shell on this machine in place of the connection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsm_core.remote.manifest import PARTIAL
from hsm_core.sources.ssh.rsync import pull
from tests.ssh.local_shell import LocalShell

ODD = ["-rf", "#x", ";y", "lr=0.1,[a]", "a*b", "two\nlines", "it's", 'say "a"', "a\\b", "ä b", "\udcff", "$(touch x)"]
"""names that mean something to a shell, to rsync or to a reader of lines"""


@pytest.fixture
def host(tmp_path: Path) -> LocalShell:
    home = tmp_path / "a 'home' with $(odd) name"
    home.mkdir()
    return LocalShell(home)


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
