"""What tasks left on a real host comes home, is held against their manifests and published."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.exceptions import Unavailable
from hsm_core.remote import manifest
from hsm_core.sources.ssh.collector import Collector
from hsm_core.sources.ssh.connection import Connection
from hsm_core.sources.ssh.transfers import Transfers
from tests.testbed.sshd import SshHost

NAMES = ["tasks/task_001", "-rf", "two\nlines", "lr=0.1,[a]", "it's $(x)", "#1", "\udcff"]


@pytest.fixture
def collector(ssh_host: SshHost, tmp_path: Path) -> Iterator[Collector]:
    connection = Connection("server1", ssh_host.config())
    connection.open()
    sweep = tmp_path / "sweep"
    (sweep / ".hsm" / "results").mkdir(parents=True)
    transfers = Transfers(connection, compress=False)
    yield Collector(transfers, "server1", f"{ssh_host.home}/R", sweep, pickles=False)
    connection.close()


def leave(host: SshHost, attempt: str, name: str) -> Path:
    """What an attempt leaves, with its manifest; hostile too."""
    folder = host.home / "R" / name
    (folder / "ckpt").mkdir(parents=True)
    (folder / "train.log").write_bytes(os.fsencode(name))
    (folder / "ckpt" / "-1").write_bytes(os.urandom(2 << 20))
    (folder / "ckpt" / "best").symlink_to("-1")
    (folder / "loop").symlink_to("loop")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "other").symlink_to("../task_002")
    os.mkfifo(folder / "pipe")
    results = host.home / "R" / ".hsm" / "results"
    results.mkdir(parents=True, exist_ok=True)
    manifest.write(str(folder), f"{results}/{attempt}.manifest")
    for here, folders, files in os.walk(host.home / "R"):
        for entry in (here, *(os.path.join(here, one) for one in [*folders, *files])):
            os.chown(entry, host.uid, -1, follow_symlinks=False)
    return folder


def test_all_that_may_come_home_is_there(collector: Collector, ssh_host: SshHost, tmp_path: Path) -> None:
    outputs = {f"task_{number:03}.1.1": name for number, name in enumerate(NAMES)}
    for attempt, name in outputs.items():
        leave(ssh_host, attempt, name)
    collector.collect(outputs, outputs.keys())
    for name in NAMES:
        home = tmp_path / "sweep" / name
        assert sorted(os.listdir(home)) == ["ckpt", "loop", "train.log"]
        assert (home / "train.log").read_bytes() == os.fsencode(name)
        assert (home / "ckpt" / "best").read_bytes() == (ssh_host.home / "R" / name / "ckpt" / "-1").read_bytes()
    mirror = tmp_path / "sweep" / ".hsm" / "incoming" / "server1"
    assert [path for path in mirror.rglob("*") if not path.is_dir()] == []


def test_what_is_not_as_its_manifest_says_is_not_collected(
    collector: Collector, ssh_host: SshHost, tmp_path: Path
) -> None:
    left = leave(ssh_host, "task_001.1.1", "0")
    (left / "train.log").write_bytes(b"1")
    with pytest.raises(Unavailable, match=r"1 file of task_001\.1\.1 did not come.*'train.log' has another content"):
        collector.collect({"task_001.1.1": "0"}, {"task_001.1.1"})
    assert not (tmp_path / "sweep" / "0").exists()
    (left / "train.log").write_bytes(b"0")
    collector.collect({"task_001.1.1": "0"}, {"task_001.1.1"})
    assert (tmp_path / "sweep" / "0" / "train.log").read_bytes() == b"0"
