"""What tasks left on a real host comes home, is held against their manifests and published."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hsm_core.remote import manifest
from hsm_core.ssh import deploy
from hsm_core.ssh.connection import Connection
from hsm_core.transfer import parcels as parcels_module
from hsm_core.transfer.collector import Collector
from hsm_core.transfer.parcels import Parcels
from hsm_core.transfer.rsync import Moved
from hsm_core.transfer.transfers import Transfers
from tests.testbed.sshd import SshHost

NAMES = ["tasks/task_001", "-rf", "two\nlines", "lr=0.1,[a]", "it's $(x)", "#1", "\udcff"]


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    made = Connection("server1", ssh_host.config())
    made.open()
    yield made
    made.close()


@pytest.fixture
def program(ssh_host: SshHost, far_python: Path) -> Sequence[str]:
    """What starts the program there that packs parcels."""
    base = ssh_host.home / ".hsm"
    packed, digest = deploy.archive()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(base / "agent" / digest)
    return deploy.command(str(base), str(far_python), "parcel")


class Transferred(Transfers):
    """Takes note of what is transferred."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, compress=False)
        self.names: list[str] = []

    def pull(self, remote: str, names: Sequence[str], into: Path) -> Moved:
        self.names += names
        return super().pull(remote, names, into)


@pytest.fixture
def transfers(connection: Connection) -> Transferred:
    return Transferred(connection)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "sweep" / ".hsm" / "results").mkdir(parents=True)
    return tmp_path / "sweep"


def made(connection: Connection, transfers: Transfers, sweep: Path, host: SshHost, program: Sequence[str]) -> Collector:
    parcels = Parcels(connection, program, f"{host.home}/R")
    return Collector(transfers, parcels, "server1", f"{host.home}/R", sweep, pickles=False)


@pytest.fixture
def collector(
    connection: Connection, transfers: Transferred, sweep: Path, ssh_host: SshHost, program: Sequence[str]
) -> Collector:
    return made(connection, transfers, sweep, ssh_host, program)


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
    tell(host, attempt, folder)
    return folder


def leave_little(host: SshHost, attempt: str, name: str) -> Path:
    """What most attempts leave."""
    folder = host.home / "R" / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / "train.log").write_bytes(os.fsencode(name))
    (folder / "empty").touch()
    (folder / ".hydra" / "config.yaml").write_bytes(b"x: 1\n")
    (folder / ".hydra" / "run.sh").touch(mode=0o755)
    os.utime(folder / "train.log", ns=(1, 1_500_000_000_123_456_789))
    tell(host, attempt, folder)
    return folder


def tell(host: SshHost, attempt: str, folder: Path) -> None:
    """Write the manifest of an attempt; all there belongs to the host's user then."""
    results = host.home / "R" / ".hsm" / "results"
    results.mkdir(parents=True, exist_ok=True)
    manifest.write(str(folder), f"{results}/{attempt}.manifest")
    for here, folders, files in os.walk(host.home / "R"):
        for entry in (here, *(os.path.join(here, one) for one in [*folders, *files])):
            os.chown(entry, host.uid, -1, follow_symlinks=False)


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
    leave(ssh_host, "task_002.1.1", "1")
    outputs = {"task_001.1.1": "0", "task_002.1.1": "1"}
    _, late = collector.collect(outputs, outputs.keys())
    assert list(late) == ["task_001.1.1"]
    words = "1 file of task_001.1.1 did not come as they are there: 'train.log' has another content"
    assert late["task_001.1.1"] == words
    assert (tmp_path / "sweep" / "1" / "train.log").read_bytes() == b"1"
    assert not (tmp_path / "sweep" / "0").exists()
    (left / "train.log").write_bytes(b"0")
    collector.collect({"task_001.1.1": "0"}, {"task_001.1.1"})
    assert (tmp_path / "sweep" / "0" / "train.log").read_bytes() == b"0"


def test_what_is_little_comes_in_one_stream(
    collector: Collector, transfers: Transferred, ssh_host: SshHost, sweep: Path
) -> None:
    outputs = {f"task_{number:03}.1.1": name for number, name in enumerate([*NAMES, "a=1/b=2/c"])}
    for attempt, name in outputs.items():
        leave_little(ssh_host, attempt, name)
    assert collector.collect(outputs, outputs.keys()) == ([], {})
    assert transfers.names == []
    for name in outputs.values():
        home, there = sweep / name, ssh_host.home / "R" / name
        files = sorted(path.relative_to(there) for path in there.rglob("*"))
        assert sorted(path.relative_to(home) for path in home.rglob("*")) == files
        for path in (path for path in files if not (there / path).is_dir()):
            ours, theirs = home / path, there / path
            assert ours.read_bytes() == theirs.read_bytes()
            assert ours.stat().st_mtime_ns == theirs.stat().st_mtime_ns
            assert ours.stat().st_mode & 0o100 == theirs.stat().st_mode & 0o100
    assert [path for path in (sweep / ".hsm" / "incoming").rglob("*") if not path.is_dir()] == []


def test_much_and_little_of_which_some_is_here(
    collector: Collector, transfers: Transferred, ssh_host: SshHost, sweep: Path
) -> None:
    """What an earlier attempt left at home stays where this one has nothing of that name."""
    names = ["much", "little", "again", "many", "growing"]
    outputs = {f"task_{number:03}.1.1": name for number, name in enumerate(names)}
    for attempt, name in outputs.items():
        (leave if name == "much" else leave_little)(ssh_host, attempt, name)
    for number in range(100):
        (ssh_host.home / "R" / "many" / str(number)).touch()
    tell(ssh_host, "task_003.1.1", ssh_host.home / "R" / "many")
    (sweep / "again").mkdir()
    (sweep / "again" / "train.log").write_bytes(b"earlier")
    (sweep / "again" / "more").touch()
    collector.collect({"task_004.1.1": "growing"}, frozenset())
    transfers.names.clear()
    assert collector.collect(outputs, outputs.keys() - {"task_004.1.1"})[1] == {}
    assert [name for name in transfers.names if not name.startswith(".hsm/")] == ["much", "many", "growing"]
    for name in names:
        assert (sweep / name / "train.log").read_bytes() == name.encode()
    assert (sweep / "again" / "more").exists()
    assert (sweep / "much" / "ckpt" / "-1").stat().st_size == 2 << 20
    assert len(list((sweep / "many").iterdir())) == 103


def test_a_folder_at_home_that_is_a_link_is_not_written_through(
    collector: Collector, ssh_host: SshHost, sweep: Path, tmp_path: Path
) -> None:
    leave_little(ssh_host, "task_001.1.1", "a/b")
    (tmp_path / "elsewhere").mkdir()
    (sweep / "a").symlink_to(tmp_path / "elsewhere")
    skipped, _ = collector.collect({"task_001.1.1": "a/b"}, {"task_001.1.1"})
    assert "at home there is a link or a file on the way to it" in skipped[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def parcel(attempt: str = "task_001.1.1", name: str = "train.log", size: int = 1, **more: object) -> str:
    """A shell script that answers with one parcel."""
    entries = [{"name": name, "size": size, "sha256": "0" * 64}]
    head = json.dumps({"id": attempt, "entries": entries, "facts": [[1, False]], **more})
    return f"read -r wanted; printf '%s\\n' '{head}'; printf 1"


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo Traceback >&2; exit 1",
        "read -r wanted; echo hello; echo world",
        "exec yes",
        "read -r wanted; yes 1 | tr -d '\\n'",
        "exec sleep 600",
        "read -r wanted; echo '[]'",
        'read -r wanted; printf \'{"id": "\\377"}\\n\'',
        parcel("task_002.1.1"),
        parcel(name="../../evil"),
        parcel(name="/tmp/evil"),
        parcel(size=-1),
        parcel(size=1 << 40),
        parcel(size=2),
        parcel(facts=[]),
        parcel(facts=[["a", "b"]]),
        parcel(facts=[[1 << 200, False]]),
        parcel(entries="{}"),
        parcel(entries=7),
        parcel(entries=[7]),
        parcel(entries=[{"name": 1, "size": 1, "sha256": "0"}]),
        parcel(entries=[{"name": "train.log", "link": "x"}]),
        parcel(),
    ],
)
def test_what_is_no_parcel_harms_nobody(
    script: str,
    connection: Connection,
    transfers: Transferred,
    ssh_host: SshHost,
    sweep: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parcels_module, "PATIENCE", 1.0)
    leave_little(ssh_host, "task_001.1.1", "0")
    collector = made(connection, transfers, sweep, ssh_host, ["sh", "-c", script])
    for _ in range(parcels_module.TRIES + 1):
        assert collector.collect({"task_001.1.1": "0"}, {"task_001.1.1"})[1] == {}
    assert (sweep / "0" / "train.log").read_bytes() == b"0"
    assert [*tmp_path.rglob("evil"), *Path("/tmp").glob("evil")] == []
