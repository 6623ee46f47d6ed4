"""What a site's Slurm does that is no fault of a job: FAULTS.md, rows 26, 27, 29, 30 and 32."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hsm_core.events import AttemptFinished, SourceDown, SourceQueue
from hsm_core.remote import starts
from hsm_core.sources.hpc import watch
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.task import Attempt, Cause
from hsm_core.testing import Bench, alive, wait_until
from tests.testbed import schedulers
from tests.testbed.call_log import before
from tests.testbed.schedulers import MakeBench
from tests.testbed.slurm import SlurmCluster


@pytest.fixture
def cluster(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    schedulers.use(slurm.environ, monkeypatch, grace=1.0)
    yield slurm
    slurm.clear()


@pytest.fixture
def accounting(slurm_accounting: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    schedulers.use(slurm_accounting.environ, monkeypatch, grace=1.0)
    yield slurm_accounting
    slurm_accounting.clear()


def hang(bench: Bench) -> Attempt:
    attempt = bench.attempt(0, "do=hang", "stubborn=false")
    bench.source.submit([attempt])
    bench.started(attempt)
    bench.wait_for_file(bench.output(0, "hanging"))
    return attempt


def kill_element(bench: Bench) -> None:
    """Kill the job's own process and all below it, as a node's kernel does that has no memory left."""
    pid = int(bench.output(0, "pid").read_text())
    supervisor = psutil.Process(pid).parent()
    assert supervisor is not None
    element = supervisor.parent()
    assert element is not None
    for process in (element, supervisor, psutil.Process(pid)):
        process.send_signal(signal.SIGKILL)


def follow(bench: Bench, attempt: Attempt) -> None:
    """A later launcher's source takes the attempt over."""
    bench.source = HpcSource("cluster", bench.source.config, 4)
    bench.source.start(bench.context(2), bench.events.put)
    bench.source.attach([attempt])


def test_an_sbatch_that_takes_a_job_and_says_that_it_did_not(
    cluster: SlurmCluster, make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    script = f"$REAL \"$@\" >>{tmp_path}/taken\necho '{error}' >&2\nexit 1"
    monkeypatch.setenv("PATH", before(tmp_path / "bin", cluster.environ, {"sbatch": script})["PATH"])
    bench = make_bench()
    attempt = bench.attempt(0, "do=return", "value=7")
    bench.source.submit([attempt])
    down = bench.wait(lambda event: isinstance(event, SourceDown))
    assert isinstance(down, SourceDown)
    assert "Socket timed out" in down.reason
    assert bench.finished(attempt).outcome.return_value == 7
    assert len((tmp_path / "taken").read_text().splitlines()) == 1


def test_a_site_whose_commands_print_more_than_they_are_asked_for(
    cluster: SlurmCluster, make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another language, too: what LANG does to the real programs they do here."""
    banner = "echo 'Willkommen auf Knoten 12!'\necho '*** 2026 maintenance: job 4711 ***'\necho 'Warnung: 99' >&2"
    scripts = {name: f'{banner}\nexec $REAL "$@"' for name in ("sbatch", "squeue", "scontrol", "scancel")}
    with monkeypatch.context() as patch:
        patch.setenv("PATH", before(tmp_path / "bin", cluster.environ, scripts)["PATH"])
        patch.setenv("LANG", "de_DE.UTF-8")
        patch.setenv("SQUEUE_FORMAT", "%i")
        bench = make_bench()
        attempt = hang(bench)
        if not any(isinstance(event, SourceQueue) and event.running for event in bench.seen):
            bench.wait(lambda event: isinstance(event, SourceQueue) and bool(event.running))
        bench.source.cancel([attempt])
        assert bench.finished(attempt).outcome.cause is Cause.CANCELLED
        assert bench.run(1, "do=return", "value=1").outcome.completed


def test_a_job_that_is_held(cluster: SlurmCluster, make_bench: MakeBench) -> None:
    """It is told as held, not as running, until somebody lets it go."""
    bench = make_bench(default_resources="cpus_per_task=4:nodes=4:exclusive=true")
    running = hang(bench)
    waiting = bench.attempt(1, "do=return", "value=2")
    bench.source.submit([waiting])
    wait_until(lambda: "PENDING" in cluster.jobs().values(), "the second job")
    (job,) = [name for name, state in cluster.jobs().items() if state == "PENDING"]
    cluster.run("scontrol", "hold", job)
    told = bench.wait(lambda event: isinstance(event, SourceQueue) and "held" in str(event.pending))
    assert isinstance(told, SourceQueue)
    assert told.pending == {"held by an administrator": 1}
    assert sum(told.running.values()) == 1
    bench.source.cancel([running])
    cluster.run("scontrol", "release", job)
    assert bench.ended(waiting).outcome.return_value == 2


def test_a_job_that_nobody_remembers_is_lost(cluster: SlurmCluster, make_bench: MakeBench) -> None:
    bench = make_bench()
    attempt = hang(bench)
    bench.source.leave()
    kill_element(bench)
    wait_until(lambda: cluster.jobs() == {}, "the controller to forget the job")
    follow(bench, attempt)
    outcome = bench.finished(attempt).outcome
    assert outcome.cause is Cause.LOST
    assert re.fullmatch(r"the scheduler no longer knows job \d+_0, and it left no result", outcome.message), outcome


@pytest.mark.parametrize("trouble", ["exit 127", "echo 'sacct: error: slurm_persist_conn_open' >&2; exit 1"])
def test_an_accounting_that_does_not_answer_holds_nothing_up(
    accounting: SlurmCluster, make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setenv("PATH", before(tmp_path / "bin", accounting.environ, {"sacct": trouble})["PATH"])
    bench = make_bench()
    attempt = hang(bench)
    bench.source.leave()
    kill_element(bench)
    wait_until(lambda: accounting.jobs() == {}, "the controller to forget the job")
    follow(bench, attempt)
    assert bench.finished(attempt).outcome.cause is Cause.LOST
    assert not [event for event in bench.seen if isinstance(event, SourceDown)]


def test_a_node_that_is_cut_off_while_its_task_lives_on(
    cluster: SlurmCluster, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """slurmd and its stepd are killed: the task is lost once what lives on there has ended, not before."""
    monkeypatch.setattr(watch, "CALLED_OFF", starts.PATIENCE)
    bench = make_bench()
    attempt = hang(bench)
    pid = int(bench.output(0, "pid").read_text())
    node = cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%N").strip()
    cluster.kill_node(node)
    assert alive(pid)
    try:
        outcome = bench.finished(attempt).outcome
        assert not alive(pid)
        assert outcome.cause is Cause.LOST
        assert re.fullmatch(rf"the node of job \d+_0 failed \({node}\)", outcome.message), outcome
        again = bench.run(0, "do=return", "value=2", number=2)
        assert again.outcome.completed
        assert len([event for event in bench.seen if isinstance(event, AttemptFinished)]) == 2
    finally:
        cluster.start_node(node)
