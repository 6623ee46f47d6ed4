"""What tasks of a sweep ask a real Slurm for, and what it says that they have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import pytest

from hsm_core import events as ev
from hsm_core.journal import entries
from hsm_core.task import Cause, TaskState
from tests.faults.conftest import interruptible
from tests.hpc.test_slurm_sweeps import ClusterSweep, sweep

__all__ = ["interruptible", "sweep"]

APP = """
import os, subprocess, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    held = b"x" * (cfg.eat << 20)
    if "SLURM_JOB_ID" in os.environ:
        memory = int(os.environ.get("SLURM_MEM_PER_NODE") or os.environ["SLURM_MEM_PER_CPU"])
        while cfg.eat > memory:  # Slurm is about to see that
            time.sleep(0.1)
        me = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format(**os.environ)
        told = subprocess.run(["scontrol", "-o", "show", "job", me], capture_output=True, text=True, check=True).stdout
        Path(HydraConfig.get().runtime.output_dir, "job").write_text(told)
    Path(HydraConfig.get().runtime.output_dir, "result.txt").touch()


if __name__ == "__main__":
    main()
"""
FILES = {
    "config.yaml": "defaults: [_self_, {size: small}]\nx: 0\neat: 0\nroom: 300MB\n",
    "size/small.yaml": "n: 1\n",
    "size/large.yaml": "# @package _global_\nhsm: {resources: {mem: '${room}', cpus: 2}}\n",
    "size/wrong.yaml": "# @package hsm.resources\nmmem: 4GB\n",
}
GROWING = "hydra.launcher.retry.oom={times:2,mem:x2,max:1GB}"


@pytest.fixture
def asking(sweep: ClusterSweep) -> ClusterSweep:
    """A sweep of an app that notes what Slurm says of each of its jobs."""
    (sweep.folder / "app.py").write_text(APP)
    for name, text in FILES.items():
        path = sweep.folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sweep


def settings(sweep: ClusterSweep, default_resources: str) -> None:
    text = f"compute_sources: {{cluster: {{type: hpc, system: slurm, default_resources: '{default_resources}'}}}}\n"
    (sweep.folder / "hsm_config.yaml").write_text(text)


def job(sweep: ClusterSweep, index: int) -> Mapping[str, str]:
    """What Slurm said of the job that a task ran in, by its own names."""
    return dict(re.findall(r"(\S+?)=(\S*)", sweep.output(index, "job").read_text()))


def attempts(sweep: ClusterSweep, index: int) -> list[ev.AttemptSubmitted]:
    found = (entry.event for entry in entries(sweep.directory / ".hsm" / "journal.jsonl"))
    return [event for event in found if isinstance(event, ev.AttemptSubmitted) and event.task == index]


def test_two_kinds_of_tasks_are_two_arrays(asking: ClusterSweep) -> None:
    assert asking.launch("x=range(4)", "size=small,large", "room=200MB").wait(120) == 0, asking.said()
    arrays = defaultdict(set)
    for index, task in asking.state().tasks.items():
        told = job(asking, index)
        arrays[task.overrides[1]].add(told["ArrayJobId"])
        asked = (told["NumCPUs"], told.get("MinMemoryNode"), told.get("MinMemoryCPU"))
        assert asked == (("2", "200M", None) if "size=large" in task.overrides else ("1", None, "100M"))
    assert [len(ids) for ids in arrays.values()] == [1, 1]
    assert set.isdisjoint(*arrays.values())
    asking.audit()


def test_own_words_on_the_command_line(asking: ClusterSweep) -> None:
    settings(asking, "mem=150MB:cpus=2")
    own = ("+hsm.resources.mem=200MB,${room}", "+hsm.walltime=5m", "x=0,1")
    assert asking.launch(*own).wait(120) == 0, asking.said()
    told = [job(asking, index) for index in range(4)]
    assert [(t["MinMemoryNode"], t["NumCPUs"], t["TimeLimit"]) for t in told] == [
        *(2 * [("200M", "2", "00:05:00")]),
        *(2 * [("300M", "2", "00:05:00")]),
    ]


def test_a_task_that_asks_for_nonsense_fails_alone(asking: ClusterSweep) -> None:
    launcher = asking.launch("x=range(2)", "size=small,wrong", "hydra.launcher.raise_on_failure=false")
    assert launcher.wait(120) == 0, asking.said()
    for task in asking.state().tasks.values():
        assert task.outcome is not None
        if "size=wrong" in task.overrides:
            assert task.outcome.cause is Cause.ERROR
            assert task.outcome.message == "hsm.resources: mmem: there is no resource 'mmem'; did you mean mem?"
            assert not asking.output(task.index, "").exists()
        else:
            assert task.state is TaskState.COMPLETED


def test_nonsense_that_is_known_before_starts_nothing(asking: ClusterSweep) -> None:
    assert asking.launch("x=0", "+hsm.resources.mem=1GB,8GBB").wait(60) == 1
    words = "+hsm.resources.mem=8GBB: hsm.resources: mem: the text '8GBB' is no size"
    assert f"  {words}" in asking.said()
    assert asking.launch("x=0", "+hsm.resources.mem=8GBB", "hydra.launcher.dry_run=true").wait(60) == 1
    assert f"error: {words}" in asking.said()
    assert not asking.directory.joinpath(".hsm").exists()
    config = asking.folder / "conf" / "config.yaml"
    config.write_text(f"{config.read_text()}hsm: {{resources: {{noodles: 4}}}}\n")
    assert asking.launch("x=0,1").wait(60) == 1
    assert "  hsm.resources: noodles: there is no resource 'noodles'; did you mean nodes?" in asking.said()
    assert not asking.directory.joinpath(".hsm").exists()


def test_elsewhere_own_words_change_nothing(asking: ClusterSweep) -> None:
    (asking.folder / "hsm_config.yaml").write_text("compute_sources: {here: {type: local, max_parallel_tasks: 2}}\n")
    launcher = asking.launch("x=0,1", "size=small,large,wrong", "+hsm.resources.gpus=many")
    assert launcher.wait(60) == 0, asking.said()


@pytest.mark.parametrize("asked", ["mem=100MB", "nodes=1"])
def test_a_task_that_needs_more_memory_gets_it(asking: ClusterSweep, asked: str) -> None:
    """It is killed at its first limit, said or the cluster's own, and comes again with twice as much."""
    settings(asking, asked)
    assert asking.launch("eat=0,150", GROWING).wait(120) == 0, asking.said()
    assert [attempt.needs for attempt in attempts(asking, 1)] == [None, 200]
    assert job(asking, 1)["MinMemoryNode"] == "200M"
    assert asking.state().tasks[1].failures == {"oom": 1}
    assert len(attempts(asking, 0)) == 1
    asking.audit()


def test_what_to_do_about_a_lack_of_memory(asking: ClusterSweep) -> None:
    settings(asking, "mem=100MB")
    assert asking.launch("eat=150", "hydra.launcher.raise_on_failure=false").wait(120) == 0, asking.said()
    outcome = asking.state().tasks[0].outcome
    assert outcome is not None
    assert (outcome.cause, outcome.given) == (Cause.OOM, 100)
    words = r"out of memory \(job \d+_0, limit 100 MiB\); give it more with hsm\.resources\.mem=200MB, with default_.*"
    assert re.fullmatch(words, outcome.message), outcome.message


def test_the_limit_of_the_sweep_is_told_to_the_scheduler(asking: ClusterSweep) -> None:
    launcher = asking.launch("size=small,large", "hydra.launcher.memory_per_task=250MB")
    assert launcher.wait(120) == 0, asking.said()
    assert [job(asking, index)["MinMemoryNode"] for index in range(2)] == ["250M", "300M"]


def test_a_limit_that_grows_is_told_to_the_scheduler(asking: ClusterSweep) -> None:
    """It is the task's own limit that it runs into."""
    settings(asking, "mem=150MB")
    launcher = asking.launch("eat=120", GROWING, "hydra.launcher.memory_per_task=100MB")
    assert launcher.wait(120) == 0, asking.said()
    found = [(attempt.memory, attempt.needs) for attempt in attempts(asking, 0)]
    assert found == [(100, None), (200, 200)]
    assert job(asking, 0)["MinMemoryNode"] == "200M"


def test_gpus_that_the_scheduler_gave(asking: ClusterSweep) -> None:
    assert asking.launch("x=0", "+hsm.resources.gpus=0,2").wait(120) == 0, asking.said()
    found = [entry.event for entry in entries(asking.directory / ".hsm" / "journal.jsonl")]
    assert {e.task: e.gpus for e in found if isinstance(e, ev.AttemptStarted)} == {0: None, 1: ["0", "1"]}
