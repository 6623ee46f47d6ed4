"""The clusters of the testbed are real, apart from each other, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsm_core.testing import alive, wait_until
from tests.testbed.slurm import CGROUP, SlurmCluster, remove_leftovers


@dataclass(frozen=True)
class Doomed:
    """Jobs that end half a minute later: one of which time is up, and two whose node was killed."""

    cluster: SlurmCluster
    late: str
    lost: str
    lost_but_requeued: str


@pytest.fixture(autouse=True, scope="module")
def doomed(slurm_programs: None) -> Iterator[Doomed]:
    """On a cluster of their own, so that the half minute passes while other tests run."""
    with SlurmCluster({"MinJobAge": "600"}, nodes=2) as cluster:
        wait = "echo $$; sleep 600"
        late = cluster.submit(wait, "--nodelist=n1")
        lost = cluster.submit(wait, "--nodelist=n2", "--no-requeue")
        requeued = cluster.submit(wait, "--nodelist=n2", "--requeue")
        wait_until(lambda: all(map(cluster.output, (late, lost, requeued))), "the jobs to run")
        cluster.expire(late)
        cluster.kill_node("n2")
        yield Doomed(cluster, late, lost, requeued)


@pytest.fixture
def cluster(slurm: SlurmCluster) -> Iterator[SlurmCluster]:
    yield slurm
    slurm.clear()


def until(path: Path) -> str:
    """A line of shell that waits for a file."""
    return f"until [ -e {path} ]; do sleep 0.1; done"


def allocate(mebibytes: int) -> str:
    return f"exec {sys.executable} -c 'import time; held = bytearray({mebibytes} << 20); time.sleep(600)'"


def test_a_job_runs_on_all_nodes(cluster: SlurmCluster) -> None:
    job = cluster.submit("srun bash -c 'echo $SLURMD_NODENAME'", "--nodes=4")
    cluster.wait_for(job, "COMPLETED")
    assert sorted(cluster.output(job).split()) == cluster.nodes == ["n1", "n2", "n3", "n4"]


def test_an_array_runs_as_many_at_a_time_as_it_may(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = cluster.submit(until(tmp_path / "go"), "--array=0-3%2")
    cluster.wait_for(f"{job}_1", "RUNNING")
    cluster.wait_for(f"{job}_0", "RUNNING")
    waiting = cluster.run("squeue", "-h", "-t", "PENDING", "-o", "%i|%r").strip()
    assert waiting == f"{job}_[2-3%2]|JobArrayTaskLimit"
    (tmp_path / "go").touch()
    for index in range(4):
        cluster.wait_for(f"{job}_{index}", "COMPLETED")


def test_a_job_of_high_has_one_of_low_start_again(cluster: SlurmCluster, tmp_path: Path) -> None:
    all_of_it = ("--nodes=4", "--exclusive")
    run = f"echo run ${{SLURM_RESTART_COUNT:-0}}; {until(tmp_path / 'go')}"
    low = cluster.submit(run, "--partition=low", "--requeue", "--open-mode=append", *all_of_it)
    wait_until(lambda: "run 0" in cluster.output(low), "the first run")
    high = cluster.submit(until(tmp_path / "go"), "--partition=high", *all_of_it)
    cluster.wait_for(high, "RUNNING")
    assert cluster.jobs()[low] == "PENDING"
    (tmp_path / "go").touch()
    cluster.wait_for(low, "COMPLETED")
    assert "DUE TO PREEMPTION" in cluster.output(low)
    assert "run 1" in cluster.output(low)


def test_a_job_over_its_memory_limit_is_killed(cluster: SlurmCluster) -> None:
    job = cluster.submit(allocate(200), "--mem=50")
    cluster.wait_for(job, "FAILED")
    assert "Exceeded job memory limit" in cluster.output(job)


@pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="here are no cgroups v1 to write to")
def test_with_cgroups_it_is_out_of_memory(slurm_programs: None) -> None:
    with SlurmCluster(nodes=1, memory_cgroups=True) as cluster:
        job = cluster.submit(allocate(200), "--mem=50")
        cluster.wait_for(job, "OUT_OF_MEMORY")
        groups = f"slurm_{cluster.nodes[0]}"
    assert not list(CGROUP.parent.glob(f"*/{groups}"))


def test_gpus_are_dealt_out(cluster: SlurmCluster) -> None:
    job = cluster.submit("echo $SLURMD_NODENAME: $CUDA_VISIBLE_DEVICES", "--gres=gpu:2")
    cluster.wait_for(job, "COMPLETED")
    assert cluster.output(job) == "n4: 0,1\n"


def test_a_job_outlives_its_controller(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = cluster.submit(f"echo $$; {until(tmp_path / 'go')}")
    wait_until(lambda: cluster.output(job) != "", "the job to run")
    cluster.stop_controller()
    assert alive(int(cluster.output(job)))
    cluster.start_controller()
    assert cluster.jobs()[job] == "RUNNING"
    (tmp_path / "go").touch()
    cluster.wait_for(job, "COMPLETED")


def test_a_killed_controller_comes_back(cluster: SlurmCluster) -> None:
    cluster.kill_controller()
    with pytest.raises(AssertionError, match="DOWN"):
        cluster.run("scontrol", "ping")
    cluster.start_controller()
    cluster.wait_for(cluster.submit("true"), "COMPLETED")


def test_a_frozen_controller_answers_nobody(cluster: SlurmCluster) -> None:
    environ = {**os.environ, **cluster.environ}
    with cluster.freeze_controller(), pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["squeue"], env=environ, timeout=1, check=False)
    cluster.wait_for(cluster.submit("true"), "COMPLETED")


def test_accounting_remembers(slurm_accounting: SlurmCluster) -> None:
    jobs = [slurm_accounting.submit(f"exit {code}") for code in (0, 3)]

    def told() -> list[str]:
        what = ("-X", "-n", "-P", "-j", ",".join(jobs), "-o", "JobID,State,ExitCode")
        return slurm_accounting.run("sacct", *what).splitlines()

    wait_until(lambda: told() == [f"{jobs[0]}|COMPLETED|0:0", f"{jobs[1]}|FAILED|3:0"], "both in the accounting")


def test_without_accounting_sacct_says_so(cluster: SlurmCluster) -> None:
    with pytest.raises(AssertionError, match="Slurm accounting storage is disabled"):
        cluster.run("sacct")


def test_two_clusters_know_nothing_of_each_other(cluster: SlurmCluster) -> None:
    with SlurmCluster({"MaxArraySize": "101"}, nodes=1) as other:
        other.submit("sleep 600", "--array=0-100")
        assert len(other.jobs()) == 101
        with pytest.raises(AssertionError, match="Invalid job array specification"):
            other.submit("sleep 600", "--array=0-101")
        cluster.wait_for(cluster.submit("true", "--job-name=ours"), "COMPLETED")
        assert "ours" not in other.run("squeue", "-h", "-t", "all", "-o", "%j").split()


def test_a_node_without_power_runs_nothing(cluster: SlurmCluster) -> None:
    job = cluster.submit("echo $$; sleep 600", "--nodelist=n2")
    wait_until(lambda: cluster.output(job) != "", "the job to run")
    cluster.power_off("n2")
    assert cluster.processes("n2") == []
    assert not alive(int(cluster.output(job)))
    cluster.start_node("n2")
    cluster.wait_for(cluster.submit("true", "--nodelist=n2"), "COMPLETED")


def test_nothing_is_left(slurm_programs: None) -> None:
    with SlurmCluster(nodes=1) as cluster:
        # It leaves the job's session, and wants to stay.
        job = cluster.submit("setsid bash -c 'trap \"\" TERM; echo $$; sleep 600' & wait")
        wait_until(lambda: cluster.output(job) != "", "the job to run")
        left = int(cluster.output(job))
        running = cluster.processes("n1")
        assert left in [process.pid for process in running]
    assert not [process for process in running if alive(process.pid)]
    assert not cluster.folder.exists()


def test_killed_tests_leave_nothing(slurm_programs: None) -> None:
    program = (
        "from tests.testbed.slurm import SlurmCluster\n"
        "with SlurmCluster(nodes=1) as cluster:\n"
        "    print(cluster.folder, *[process.pid for process in cluster.processes('n1')], flush=True)\n"
        "    input()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        folder, *pids = test.stdout.readline().split()
        test.send_signal(signal.SIGKILL)
    assert pids
    wait_until(lambda: not any(alive(int(pid)) for pid in pids), "its daemons to end")
    remove_leftovers()
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("setting", "value", "daemon"),
    [("SelectType", "select/nonsense", "slurmctld"), ("SlurmdSpoolDir", "/dev/null/spool", "n1")],
)
def test_what_does_not_start_says_why(setting: str, value: str, daemon: str, slurm_programs: None) -> None:
    cluster = SlurmCluster({setting: value}, nodes=1)
    with pytest.raises(pytest.fail.Exception, match=rf"{daemon} did not start: it ended(.|\n)*{value}"), cluster:
        pass
    assert not cluster.folder.exists()


def test_time_is_up(doomed: Doomed) -> None:
    doomed.cluster.wait_for(doomed.late, "TIMEOUT")
    assert "DUE TO TIME LIMIT" in doomed.cluster.output(doomed.late)


def test_a_killed_node_takes_its_jobs_with_it(doomed: Doomed) -> None:
    doomed.cluster.wait_for(doomed.lost, "NODE_FAIL")
    doomed.cluster.wait_for(doomed.lost_but_requeued, "PENDING")
    # Slurm thinks so; nobody has told the tasks.
    assert alive(int(doomed.cluster.output(doomed.lost)))
