"""What hsm asks of Slurm, asked of a real one: jobs get what they asked for, and are seen, found and cancelled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from hsm_core.sources.hpc import slurm_text
from hsm_core.sources.hpc.resources import parse
from hsm_core.sources.hpc.slurm_refusals import Refusal, question_refused, submission_refused
from hsm_core.sources.hpc.states import JobState, Phase, settled
from hsm_core.sources.hpc.translation import slurm
from hsm_core.testing import wait_until
from tests.testbed.slurm import SlurmCluster


@pytest.fixture
def cluster(slurm_accounting: SlurmCluster) -> Iterator[SlurmCluster]:
    yield slurm_accounting
    slurm_accounting.clear()


def call(cluster: SlurmCluster, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**environ, **cluster.environ},
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(cluster: SlurmCluster, command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    done = call(cluster, command, slurm_text.environment(environ or {}))
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def submit(cluster: SlurmCluster, command: str, name: str, asked: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    """Submit a line of shell in a job script as submitit writes it."""
    path, resources = cluster.folder / f"{name}.sh", parse(asked)
    path.write_text(_make_sbatch_string(command, cluster.folder, job_name=name, **slurm(resources), **more))
    of_the_user = {"SBATCH_JOB_NAME": "mine", "SBATCH_ARRAY_INX": "0-1", "SBATCH_TIMELIMIT": "1"}
    return call(cluster, ["sbatch", str(path)], slurm_text.submission_environment(of_the_user, resources))


def submitted(cluster: SlurmCluster, command: str, name: str, asked: Any, **more: Any) -> str:
    done = submit(cluster, command, name, asked, **more)
    id_ = slurm_text.parse_submitted(done.stdout)
    assert id_ is not None, done.stderr
    return id_


def queue(cluster: SlurmCluster, *ids: str) -> dict[str, JobState]:
    return slurm_text.parse_queue(said(cluster, slurm_text.queue_command(ids), {"SQUEUE_STATES": "RUNNING"}))


def wait_for(cluster: SlurmCluster, element: str, holds: Callable[[JobState], bool]) -> JobState:
    seen: list[JobState] = []

    def as_it_should() -> bool:
        seen.append(queue(cluster, element)[element])
        return holds(seen[-1])

    wait_until(as_it_should, f"{element} to be as it should")
    return seen[-1]


SHOW = "echo $SLURM_JOB_NUM_NODES $SLURM_NTASKS $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE $CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("nodes=1:ntasks=4:mem=300MB:walltime=10m", "1 4 300"),
        ("nodes=2:ntasks_per_node=2:mem=100MB", "2 4 100"),
        ("cpus-per-task=2:mem=100MB:gpus=2", "1 2 100 0,1"),
        ({"mem": "100MB", "gres": "gpu:1", "extra": {"mail-type": ["END", "FAIL"], "nice": 5}}, "1 100 0"),
    ],
)
def test_a_job_gets_what_it_asked_for(cluster: SlurmCluster, asked: Any, got: str) -> None:
    job = submitted(cluster, SHOW, "hsm-show", asked)
    wait_for(cluster, job, lambda state: state.phase is Phase.COMPLETED)
    assert (cluster.folder / f"{job}_0_log.out").read_text().split() == got.split(), "one line: of one process"


def test_elements_are_seen_from_the_queue_to_their_ends(cluster: SlurmCluster) -> None:
    ends = "case $SLURM_ARRAY_TASK_ID in 0) exit 0;; 1) exit 3;; 2) kill -9 $$;; *) exec sleep 600;; esac"
    job = submitted(cluster, ends, "hsm-array", "mem=100MB", map_count=8, array_parallelism=2)
    assert wait_for(cluster, f"{job}_0", lambda s: s.phase.ended).exit_code == 0
    failed = wait_for(cluster, f"{job}_1", lambda s: s.phase.ended)
    assert (failed.phase, failed.exit_code, failed.node is not None) == (Phase.FAILED, 3, True)
    assert wait_for(cluster, f"{job}_2", lambda s: s.phase.ended).signal == 9
    wait_for(cluster, f"{job}_4", lambda s: s.phase is Phase.RUNNING)
    waits = wait_for(cluster, f"{job}_5", lambda s: s.reason == "JobArrayTaskLimit")
    assert waits.phase is Phase.PENDING
    said(cluster, slurm_text.cancel_command([f"{job}_3", f"{job}_5", f"{job}_6"]))
    assert wait_for(cluster, f"{job}_3", lambda s: s.phase.ended).phase is Phase.CANCELLED
    assert not {f"{job}_5", f"{job}_6"} & queue(cluster, job).keys(), "cancelled before they ran, they leave no trace"
    said(cluster, slurm_text.cancel_command([job]))
    assert wait_for(cluster, f"{job}_4", lambda s: s.phase.ended).phase is Phase.CANCELLED


def test_the_accounting_knows_what_the_queue_does_not(cluster: SlurmCluster) -> None:
    job = submitted(cluster, "exit 5", "hsm-accounted", "mem=100MB")
    wait_for(cluster, job, lambda state: state.phase.ended)

    def accounted() -> dict[str, JobState]:
        return slurm_text.parse_accounting(said(cluster, slurm_text.accounting_command([job])), {job: "hsm-accounted"})

    wait_until(lambda: settled([job], {}, accounted())[job].phase is Phase.FAILED, "the accounting to learn of it")
    assert settled([job], {}, accounted())[job].exit_code == 5


def test_a_job_is_found_by_its_name_unless_it_was_rejected(cluster: SlurmCluster) -> None:
    rejected = submit(cluster, "true", "hsm-token", "mem=999GB")
    assert submission_refused(rejected.returncode, rejected.stderr) is Refusal.REJECTED
    job = submitted(cluster, "exec sleep 600", "hsm-token", "mem=100MB", map_count=3)
    command = slurm_text.find_command("hsm-token", "root")
    assert slurm_text.parse_found(said(cluster, command), "hsm-token") == [job]


def test_a_cluster_tells_its_limits(cluster: SlurmCluster) -> None:
    config = slurm_text.parse_config(said(cluster, slurm_text.CONFIG_COMMAND))
    assert config.accounting
    assert config.version
    job = submitted(cluster, "true", "hsm-all", "mem=1MB", map_count=config.max_array_size)
    said(cluster, slurm_text.cancel_command([job]))
    more = submit(cluster, "true", "hsm-more", "mem=1MB", map_count=config.max_array_size + 1)
    assert submission_refused(more.returncode, more.stderr) is Refusal.REJECTED


def test_unknown_ids(cluster: SlurmCluster) -> None:
    done = call(cluster, slurm_text.queue_command(["99999"]), slurm_text.environment({}))
    assert question_refused(done.returncode, done.stderr) is Refusal.UNKNOWN_ID
    assert queue(cluster, "99999", "99998") == {}
    assert said(cluster, slurm_text.cancel_command(["99999_3", "99998"])) == ""
