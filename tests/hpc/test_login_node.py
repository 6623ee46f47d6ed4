"""A cluster whose login node is reached by SSH: what goes wrong on the way there, and what is kept from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hsm_core.cli import hsm
from hsm_core.config import HsmConfig, ResultCollectionConfig
from hsm_core.events import AttemptFinished, Note, SourceDown, SourceUp
from hsm_core.exceptions import SourceError
from hsm_core.sources.base import SweepContext
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.testing import Bench, wait_until
from tests.testbed import login_node
from tests.testbed.fixtures import MakeHost, client_key, far_python, make_host, ssh_home
from tests.testbed.slurm import SlurmCluster
from tests.testbed.sshd import SshHome, SshHost

__all__ = ["client_key", "far_python", "make_host", "ssh_home"]

MakeBench = Callable[..., Bench]


class Tidy(Bench):
    """A sweep that removes there what was collected."""

    def context(self, epoch: int) -> SweepContext:
        tidy = HsmConfig(grace=1.0, result_collection=ResultCollectionConfig(cleanup_remote_on_success=True))
        return replace(super().context(epoch), config=tidy)


@pytest.fixture
def host(slurm: SlurmCluster, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHost]:
    """A login node whose key nobody knows yet."""
    login_node.use(monkeypatch)
    yield make_host(login_node.settings(slurm.environ))
    slurm.clear()


@pytest.fixture
def make_bench(host: SshHost, ssh_home: SshHome, far_python: Path, tmp_path: Path) -> Iterator[MakeBench]:
    """Starts a source on the login node with these settings; its key is known by then."""
    made: list[Bench] = []

    def make(kind: type[Bench] = Bench, **settings: object) -> Bench:
        ssh_home.trust(host)
        config = login_node.config(host, **{"python": str(far_python), **settings})
        made.append(kind(HpcSource("cluster", config, 4), tmp_path / str(len(made))))
        made[-1].start()
        return made[-1]

    yield make
    for bench in made:
        bench.source.stop(20.0)


def sweeps(host: SshHost) -> list[Path]:
    """The directories of sweeps on the host."""
    return [*(host.home / ".hsm" / "sweeps").glob("*/*")]


def test_a_host_whose_key_is_unknown_is_refused(host: SshHost, ssh_home: SshHome, tmp_path: Path) -> None:
    bench = Bench(HpcSource("cluster", login_node.config(host), 4), tmp_path)
    with pytest.raises(SourceError) as refused:
        bench.start()
    words = str(refused.value)
    assert words.startswith(f"cluster ({host.user}@{host.address}:{host.port}): ")
    assert host.fingerprint() in words
    assert host.logins() == 0
    bench.source.stop()


def test_a_host_without_a_scheduler(make_host: MakeHost, ssh_home: SshHome, far_python: Path, tmp_path: Path) -> None:
    host = make_host({"SetEnv": "PATH=/none:/bin/none"}, files={".bashrc": "export PATH=/nowhere\n"})
    ssh_home.trust(host)
    bench = Bench(HpcSource("cluster", login_node.config(host, python=str(far_python)), 4), tmp_path)
    with pytest.raises(SourceError, match=r"\): there is neither sbatch nor qsub on PATH there; `host` must be a node"):
        bench.start()
    bench.source.stop()


def test_a_changed_key_ends_the_source(make_bench: MakeBench, host: SshHost) -> None:
    bench = make_bench()
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    bench.started(attempt)
    host.new_host_key()
    down = bench.wait(lambda event: isinstance(event, SourceDown) and event.final)
    assert isinstance(down, SourceDown)
    assert host.fingerprint() in down.reason
    assert "its source can't be used any more" in bench.finished(attempt).outcome.message


def test_a_submission_whose_answer_was_lost_is_not_made_twice(
    make_bench: MakeBench, host: SshHost, slurm: SlurmCluster
) -> None:
    bench = make_bench()
    attempt = bench.attempt(0, "do=return", "value=5")
    before = set(slurm.jobs())
    with slurm.freeze_controller():
        bench.source.submit([attempt])
        wait_until(lambda: host.programs("sbatch") != [], "sbatch to run")
        host.kill_sessions()
        bench.wait(lambda event: isinstance(event, SourceDown))
    bench.wait(lambda event: isinstance(event, SourceUp))
    bench.source.attach([attempt])
    assert bench.ended(attempt).outcome.return_value in (5, None)
    bench.source.stop(20.0)
    assert sum(isinstance(event, AttemptFinished) for event in bench.seen) == 1
    while not bench.events.empty():
        assert not isinstance(bench.events.get(), AttemptFinished)
    assert len({name.partition("_")[0] for name in set(slurm.jobs()) - before}) <= 1


def test_tasks_ask_for_resources_of_their_own(make_bench: MakeBench, slurm: SlurmCluster) -> None:
    bench = make_bench()
    attempt = bench.attempt(0, "do=hang", "stubborn=false", "hsm.resources='cpus_per_task=3'")
    bench.source.submit([attempt])
    bench.started(attempt)
    assert slurm.run("squeue", "-h", "-o", "%C").split() == ["3"]
    bench.source.cancel([attempt])
    assert bench.finished(attempt).outcome.message == "ended before it was done"


def test_what_an_attempt_elsewhere_left_goes_along(make_bench: MakeBench, host: SshHost) -> None:
    bench = make_bench()
    left = bench.directory / "0"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "checkpoint").write_text("step 7")
    attempt = replace(bench.attempt(0, "do=return", number=2), left=str(left))
    other = bench.attempt(1, "do=return")
    bench.source.submit([attempt, other])
    assert bench.ended(attempt).outcome.completed
    assert bench.ended(other).outcome.completed
    (there,) = sweeps(host)
    assert (there / "0" / "deep" / "checkpoint").read_text() == "step 7"


def test_one_that_waits_for_what_it_needs_is_cancelled(make_bench: MakeBench, host: SshHost) -> None:
    bench = make_bench()
    left = bench.directory / "0"
    left.mkdir()
    (left / "large").write_bytes(bytes(100 << 20))
    attempt = replace(bench.attempt(0, "do=return", number=2), left=str(left))
    bench.source.submit([attempt])
    bench.source.cancel([attempt])
    outcome = bench.finished(attempt).outcome
    assert outcome.message == "ended before it was submitted"


@pytest.mark.parametrize("trusted", [False, True])
def test_only_a_trusted_one_is_unpickled(make_bench: MakeBench, trusted: bool) -> None:
    bench = make_bench(trusted=trusted)
    finished = bench.run(0, "do=strange", "kind=odd")
    bench.bring_home()
    assert finished.outcome.completed
    assert (bench.record(finished)["pickle"] is not None) == trusted
    assert [path.suffix for path in bench.records.iterdir() if path.suffix != ".json"] == [".pkl"] * trusted


def test_what_is_home_goes_away_there(make_bench: MakeBench, host: SshHost) -> None:
    bench = make_bench(Tidy)
    assert bench.run(0, "do=return").outcome.completed
    bench.bring_home()
    (there,) = sweeps(host)
    assert not (there / "0").exists()
    assert bench.output(0, "stdout.log").exists()
    bench.source.stop(20.0)
    assert sweeps(host) == []


def test_what_the_configuration_names_is_missed_there(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench()
    (tmp_path / "data").touch()
    assert bench.run(0, "do=return", f"value='{tmp_path}/data'").outcome.completed
    words = (
        f"the configuration names what is on this machine only: '{tmp_path}/data'. Put it there under the same name."
    )
    assert words in [event.message for event in bench.seen if isinstance(event, Note)]


def test_secrets_are_in_no_file_that_others_read(make_bench: MakeBench, host: SshHost) -> None:
    bench = make_bench(env={"set": {"OTHER": "s3cret-of-the-file"}})
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    started = bench.started(attempt)
    assert b"OTHER=s3cret-of-the-file" in Path(f"/proc/{started.pid}/environ").read_bytes().split(b"\0")
    found = [path for path in host.home.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert [path.name for path in found] == ["batch.json"]
    assert found[0].stat().st_mode & 0o077 == 0
    here = [path for path in bench.directory.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert here == []


def test_sources_commands(
    host: SshHost, ssh_home: SshHome, far_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"type": "hpc", "host": host.address, "port": host.port, "user": host.user, "ssh_key": str(host.key.path)}
    config = {"compute_sources": {"cluster": {**named, "python": str(far_python)}}}
    (tmp_path / "hsm_config.yaml").write_text(json.dumps(config))
    refused = CliRunner().invoke(hsm, ["sources", "test", "cluster"])
    assert refused.exit_code == 1
    assert host.fingerprint() in refused.stdout
    assert refused.stdout.splitlines()[-1].startswith("cluster  can't be used: host key failed, so ")
    ssh_home.trust(host)
    tested = CliRunner().invoke(hsm, ["sources", "test", "cluster", "--json"])
    assert tested.exit_code == 0, tested.output
    (told,) = json.loads(tested.stdout)
    steps = {step["name"]: (step["status"], step["told"]) for step in told["steps"]}
    way = ["resolve", "connect", "host key", "log in", "shell", "python", "folder", "disk", "hydra", "rsync", "agent"]
    assert [*steps] == [*way, "round trip", "commands", "scheduler"]
    assert steps["commands"] == ("good", "those of slurm are on PATH")
    assert steps["scheduler"][1].startswith("Slurm 2")
    assert [path.name for path in (host.home / ".hsm").iterdir()] == ["agent"]
    pinged = CliRunner().invoke(hsm, ["sources", "ping", "cluster"])
    assert pinged.exit_code == 0, pinged.output
    validated = CliRunner().invoke(hsm, ["sources", "validate", "cluster", "--verbose"])
    assert validated.exit_code == 0, validated.output
    assert host.fingerprint() in validated.stdout
