"""What a scheduler says, and what to do about it, in words for people."""

from __future__ import annotations

import re

from hsm_core.config.walltime import clock_text
from hsm_core.sources.hpc.resources import Resources
from hsm_core.text import printable


def shortage_facts(resources: Resources, peak: float | None) -> str:
    """`, limit 512 MiB, peak 511 MiB` of a job that ran out of memory; `peak` is the most it was seen to have."""
    limit = resources.memory
    return f"{'' if limit is None else f', limit {limit} MiB'}{'' if peak is None else f', peak {peak:.0f} MiB'}"


def time_advice(resources: Resources) -> str:
    """What to do about a job that was ended at its time limit."""
    if resources.walltime is None:
        return "it had the queue's own time limit; ask for more with hsm.resources.walltime or default_walltime"
    had, more = clock_text(resources.walltime), clock_text(2 * resources.walltime)
    asked = f"hsm.resources.walltime or default_walltime: '{more}'"
    return f"ask for more with {asked} (it had {had}), or let tasks go on from checkpoints"


def reason_words(reason: str) -> str:
    """Why a job pends, in plain words; the scheduler's own where they are plain already or nobody knows them."""
    name, _, rest = reason.partition(",")
    nodes = re.search(r"UnavailableNodes:(\S+)", rest)
    if name == "ReqNodeNotAvail" and nodes is not None:
        return f"nodes that it needs are down, drained or reserved: {printable(nodes[1], 100)}"
    known = _REASONS.get(name) or _limit(name)
    return known or printable(reason, 200)


def hopeless(reason: str) -> bool:
    """Whether a job that pends for this reason waits for ever, unless somebody does something."""
    return bool(_HOPELESS.match(reason))


def _limit(name: str) -> str:
    """The words for one of the many limits of associations and QOS (squeue(1), JOB REASON CODES)."""
    of_what = r"(PerJob|PerUser|PerNode|PerAccount)?(?:Limit|NotSatisfied)?"
    found = re.fullmatch(rf"(QOS|Assoc)?(Grp|Max|Min)(\w+?){of_what}", name)
    if found is None:
        return ""
    where, how, what, of = found.groups()
    thing = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", what).lower()
    whose = {"PerJob": " of a job", "PerUser": " of a user", "PerNode": " of a node", "PerAccount": " of an account"}
    place = {"QOS": "the QOS", "Assoc": "your account"}.get(where or "", "the cluster")
    if how == "Min":
        return f"it asks for less {thing} than {place} wants ({name})"
    if how == "Grp":
        return f"all jobs of {place} together are at the limit of {thing} ({name})"
    return f"{place} has a limit of {thing}{whose.get(of or '', '')} ({name})"


_HOPELESS = re.compile(
    r"DependencyNeverSatisfied|BadConstraints|PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|InvalidAccount"
    r"|InvalidQOS|AccountNotAllowed|QOSNotAllowed|(?:QOS|Assoc)Max\w*Per(?:Job|Node)|QOSMin|ReservationDeleted"
    r"|ReservationInvalid|MaxMemPerLimit|JobHoldMaxRequeue"
)
_REASONS = {
    "": "waits for its turn",
    "None": "waits for the scheduler to look at it",
    "Priority": "jobs of higher priority come first",
    "Resources": "waits for free nodes",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or reserved",
    "Dependency": "waits for another job",
    "DependencyNeverSatisfied": "will never start: the job that it depends on did not end as asked",
    "BeginTime": "not before its start time; after a requeue that is some minutes",
    "JobArrayTaskLimit": "as many of its array run as may at a time",
    "JobHeldUser": "held by its owner; scontrol release lets it go",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: it was requeued too often",
    "job requeued in held state": "requeued and held; scontrol release lets it go",
    "launch failed requeued held": "held: it could not be launched; ask the administrators",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved, maybe for maintenance",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionConfig": "will never start: no node of its partition has what it asks for",
    "PartitionNodeLimit": "will not start: its partition does not give so many nodes",
    "PartitionTimeLimit": "will not start: its partition does not give so much time; shorten default_walltime",
    "BadConstraints": "will never start: no node has what it asks for",
    "NodeDown": "a node that it needs is down",
    "Licenses": "waits for a license",
    "Reservation": "waits for its reservation",
    "ReservationDeleted": "will not start: its reservation is gone",
    "InvalidAccount": "will not start: its account is not valid",
    "InvalidQOS": "will not start: its QOS is not valid",
    "AccountNotAllowed": "will not start: its partition is not for this account",
    "QOSNotAllowed": "will not start: its partition is not for this QOS",
    "AssociationJobLimit": "your account has as many jobs as it may",
    "AssociationResourceLimit": "your account has as much as it may",
    "AssocMaxJobsLimit": "your account runs as many jobs as it may",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as the QOS allows at a time",
    "QOSMaxCpuPerUserLimit": "you have as many CPUs as the QOS allows at a time",
    "QOSJobLimit": "the QOS runs as many jobs as it may",
    "QOSResourceLimit": "the QOS has as much as it may",
    "QOSUsageThreshold": "the account has used more than the QOS allows",
    "Prolog": "its node is being prepared",
    "CONFIGURING": "its node is being prepared",
    "COMPLETING": "is ending",
    "SUSPENDED": "suspended, by an administrator or for other jobs",
    "STOPPED": "stopped by a signal",
    "Cleaning": "what its last start left is being cleaned up",
    "JobLaunchFailure": "it could not be launched: a folder or the shell may be missing on the node",
    "FrontEndDown": "the front end is down",
    "SchedDefer": "waits for the scheduler to look at it",
    "BurstBufferStageIn": "its files are being brought to the burst buffer",
    "BurstBufferResources": "waits for room in the burst buffer",
}
"""by squeue(1), JOB REASON CODES, and the names in Slurm's `job_state_reason.c`"""
