"""What is told to people of jobs that wait, and of those that needed more than they had."""

from __future__ import annotations

import re

import pytest

from hsm_core.sources.hpc.resources import Resources, parse
from hsm_core.sources.hpc.words import hopeless, reason_words, shortage_facts, time_advice
from tests.hpc.recordings import TESTBED


@pytest.mark.parametrize(
    ("resources", "peak", "words"),
    [
        ("mem=100MB", 314.2, ", limit 100 MiB, peak 314 MiB"),
        ("mem_per_cpu=2GB:cpus=4", None, ", limit 8192 MiB"),
        ("nodes=1", 1024.0, ", peak 1024 MiB"),
        ("nodes=1", None, ""),
    ],
)
def test_out_of_memory(resources: str, peak: float | None, words: str) -> None:
    assert shortage_facts(parse(resources), peak) == words


def test_time_limit() -> None:
    assert time_advice(parse("walltime=12h")) == (
        "ask for more with hsm.resources.walltime or default_walltime: '24:00:00' (it had 12:00:00), "
        "or let tasks go on from checkpoints"
    )
    words = "it had the queue's own time limit; ask for more with hsm.resources.walltime or default_walltime"
    assert time_advice(Resources()) == words


@pytest.mark.parametrize(
    ("reason", "words", "waits_for_ever"),
    [
        ("Priority", "jobs of higher priority come first", False),
        ("Resources", "waits for free nodes", False),
        ("Dependency", "waits for another job", False),
        ("DependencyNeverSatisfied", "will never start: the job that it depends on did not end as asked", True),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]",
         "nodes that it needs are down, drained or reserved: n[1-3]", False),
        ("ReqNodeNotAvail", "nodes that it needs are down, drained or reserved, maybe for maintenance", False),
        ("ReqNodeNotAvail, May be reserved for other job",
         "nodes that it needs are down, drained or reserved, maybe for maintenance", False),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
         "nodes that it needs are down, drained or reserved", False),
        ("JobHeldUser", "held by its owner; scontrol release lets it go", False),
        ("QOSMaxJobsPerUserLimit", "you run as many jobs as the QOS allows at a time", False),
        ("QOSMaxWallDurationPerJobLimit",
         "the QOS has a limit of wall duration of a job (QOSMaxWallDurationPerJobLimit)", True),
        ("AssocGrpCPUMinutesLimit",
         "all jobs of your account together are at the limit of cpu minutes (AssocGrpCPUMinutesLimit)", False),
        ("QOSMaxGRESPerUser", "the QOS has a limit of gres of a user (QOSMaxGRESPerUser)", False),
        ("MaxJobsPerAccount", "the cluster has a limit of jobs of an account (MaxJobsPerAccount)", False),
        ("QOSMinCpuNotSatisfied", "it asks for less cpu than the QOS wants (QOSMinCpuNotSatisfied)", True),
        ("PartitionConfig", "will never start: no node of its partition has what it asks for", True),
        ("PartitionTimeLimit",
         "will not start: its partition does not give so much time; shorten default_walltime", True),
        ("CONFIGURING", "its node is being prepared", False),
        ("", "waits for its turn", False),
        ("Not Running: Insufficient amount of resource: ncpus",
         "Not Running: Insufficient amount of resource: ncpus", False),
        ("evil\x1b[2J", "evil\\x1b[2J", False),
    ],
)  # fmt: skip
def test_why_a_job_pends(reason: str, words: str, waits_for_ever: bool) -> None:
    assert reason_words(reason) == words
    assert hopeless(reason) is waits_for_ever


RECORDED = sorted(
    {
        reason
        for path in TESTBED.glob("*.txt")
        for reason in re.findall(r"\|PENDING\|([A-Z][^|\n]+)\|", path.read_text("utf-8"))
    }
)


@pytest.mark.parametrize("reason", RECORDED)
def test_every_reason_that_a_real_slurm_gave_has_words(reason: str) -> None:
    assert reason_words(reason) != reason


def test_reasons_were_recorded() -> None:
    assert {"Priority", "Resources", "Dependency", "JobHeldUser", "PartitionDown", "BeginTime"} <= set(RECORDED)
