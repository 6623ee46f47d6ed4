"""What an ssh source does beyond what the conformance suite asks of all sources."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hsm_core.config import HsmConfig, ResultCollectionConfig
from hsm_core.events import AttemptFinished
from hsm_core.lanes import Lane, Lanes, SourceUnusable
from hsm_core.sources.base import SweepContext
from hsm_core.sources.ssh.source import SshSource
from hsm_core.strategies import RoundRobin
from hsm_core.task import Cause
from hsm_core.testing import Bench, wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome, SshHost


class Tidy(Bench):
    """A sweep that removes from hosts what was collected."""

    def context(self, epoch: int) -> SweepContext:
        tidy = HsmConfig(grace=1.0, result_collection=ResultCollectionConfig(cleanup_remote_on_success=True))
        return replace(super().context(epoch), config=tidy)


@pytest.fixture
def source(ssh_host: SshHost, far_python: Path) -> Iterator[SshSource]:
    made = SshSource("far", ssh_host.config(python=str(far_python)), slots=2)
    yield made
    made.stop(5.0)


def sweeps_of(host: SshHost) -> list[str]:
    """What the sweeps' directories on the host hold beside what is ours."""
    folders = (host.home / ".hsm" / "sweeps").glob("*/*")
    return sorted(path.name for folder in folders for path in folder.iterdir() if path.name != ".hsm")


def test_what_an_attempt_elsewhere_left_is_there_for_the_next_one(
    source: SshSource, ssh_host: SshHost, tmp_path: Path
) -> None:
    bench = Bench(source, tmp_path)
    bench.start()
    left = bench.directory / "0"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "checkpoint").write_text("step 7")
    attempt = replace(bench.attempt(0, "do=return", number=2), left=str(left))
    other = bench.attempt(1, "do=return")
    source.submit([attempt, other])
    assert bench.ended(attempt).outcome.completed
    assert bench.ended(other).outcome.completed
    (there,) = (ssh_host.home / ".hsm" / "sweeps").glob("*/far/0/deep/checkpoint")
    assert there.read_text() == "step 7"
    bench.bring_home()
    assert (left / "deep" / "checkpoint").read_text() == "step 7"
    assert (left / "pid").is_file()


def test_an_attempt_that_waits_for_what_another_left_can_be_cancelled(source: SshSource, tmp_path: Path) -> None:
    bench = Bench(source, tmp_path)
    bench.start()
    left = bench.directory / "0"
    left.mkdir()
    (left / "checkpoint").write_bytes(b"x" * (32 << 20))
    attempt = replace(bench.attempt(0, "do=hang", "stubborn=false", number=2), left=str(left))
    source.submit([attempt])
    source.cancel([attempt])
    assert bench.finished(attempt).outcome.cause is Cause.CANCELLED
    assert bench.run(1, "do=return").outcome.completed
    assert sum(isinstance(event, AttemptFinished) for event in bench.seen) == 2


def test_who_is_stopped_while_it_starts_leaves_no_thread(
    make_host: MakeHost, ssh_home: SshHome, far_python: Path, tmp_path: Path
) -> None:
    host = make_host(files={".bashrc": "touch ~/came; exec sleep 600\n"})
    ssh_home.trust(host)
    before = set(threading.enumerate())
    source = SshSource("far", host.config(python=str(far_python)), slots=2)
    bench = Bench(source, tmp_path)
    bench.write_payload()
    lanes = Lanes({"far": Lane(source, None, 0)}, RoundRobin())
    source.warm_up(tmp_path, HsmConfig(), 1)
    said: list[object] = []
    lanes.start(bench.context(1), said.append, bench.events.put)
    wait_until((host.home / "came").exists, "the login shell")
    lanes.stop(1.0)
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    assert [type(event) for event in said] == [SourceUnusable]


def test_what_was_collected_is_removed_there_where_that_is_wanted(
    source: SshSource, ssh_host: SshHost, tmp_path: Path
) -> None:
    bench = Tidy(source, tmp_path)
    bench.start()
    good, bad, later = bench.attempt(0, "do=return"), bench.attempt(1, "do=raise"), bench.attempt(2, "do=return")
    for attempt in (good, bad, later):
        source.submit([attempt])
        bench.finished(attempt)
    source.collect([good, bad])
    assert (bench.directory / "0" / "stdout.log").is_file()
    assert (bench.directory / "1" / "stderr.log").is_file()
    assert sweeps_of(ssh_host) == ["1", "2"], "a failed task's directory stays while the sweep runs"
    source.collect([later])
    source.stop(5.0)
    assert list((ssh_host.home / ".hsm" / "sweeps").glob("*/*")) == []


def test_what_was_not_collected_stays_there(source: SshSource, ssh_host: SshHost, tmp_path: Path) -> None:
    bench = Tidy(source, tmp_path)
    bench.start()
    assert bench.run(0, "do=return").outcome.completed
    source.stop(5.0)
    assert sweeps_of(ssh_host) == ["0"]


def test_a_host_has_its_own_umask_and_may_keep_our_folder_elsewhere(
    make_host: MakeHost, ssh_home: SshHome, far_python: Path, tmp_path: Path
) -> None:
    host = make_host(files={".bashrc": "umask 027\nexport HSM_HOME=~/large/hsm\n", "large/.keep": ""})
    ssh_home.trust(host)
    source = SshSource("far", host.config(python=str(far_python)), slots=2)
    bench = Bench(source, tmp_path)
    try:
        bench.start()
        assert bench.run(0, "do=return").outcome.completed
        (left,) = (host.home / "large" / "hsm" / "sweeps").glob("*/far/0/pid")
        assert stat.S_IMODE(left.stat().st_mode) == 0o640
        assert stat.S_IMODE((host.home / "large" / "hsm").stat().st_mode) == 0o700
        assert not (host.home / ".hsm").exists()
    finally:
        source.stop(5.0)
