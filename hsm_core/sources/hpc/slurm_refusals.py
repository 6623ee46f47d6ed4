"""What Slurm's commands say when they don't do what they were asked, sorted by what is to be done about it.

The texts are those of Slurm's `slurm_errno.c`, from 16.05 to 25.05, and what 22.05 said on a real cluster
(tests/testbed/slurm_outputs). They are read with LC_ALL=C, as `hsm_core.sources.hpc.slurm_text.environment` has it.
"""

from __future__ import annotations

import re
from enum import Enum

from hsm_core.text import printable


class Refusal(Enum):
    REJECTED = "rejected"
    """the same request will always be refused"""
    UNAVAILABLE = "unavailable"
    """nothing was done: the controller can't be asked now, or the partition takes no jobs for a while"""
    OVER_LIMIT = "over limit"
    """nothing was done: too many jobs are in the queue, or too many requests come; some later it will be taken"""
    AMBIGUOUS = "ambiguous"
    """the job may have been taken: it is to be looked for before it is submitted again"""
    UNKNOWN_ID = "unknown id"
    """there is no such job, or there is no more"""
    FINISHED = "finished"
    """the job has ended already"""
    NO_ACCOUNTING = "no accounting"
    """the cluster keeps no accounts that sacct could read"""


_OVER_LIMIT = re.compile(
    r"\w*MaxSubmit\w*|\w*GrpSubmitJobs\w*|MaxJobCount limit reached|temporarily unable to accept job"
    r"|Unable to create job record, try again|Rate limit exceeded|Resource temporarily unavailable"
)
# The request went out, or part of it, and no answer came.
_AMBIGUOUS = re.compile(
    r"Socket timed out|\((?:send|receive|shutdown) failure\)|Message (?:send|receive) failure"
    r"|Zero Bytes were transmitted|Communication shutdown failure|Unexpected message received|Insane message length"
    r"|timed out (?:writing|reading)|delayed socket error|Connection reset|Broken pipe|not connected"
    r"|forced closed by quiesce|Duplicate job id|internal error, contact"
)
_UNAVAILABLE = re.compile(
    r"\(connect failure\)|Communication connection failure|Connection (?:refused|timed out)|timed out establishing"
    r"|No route to host|Network is unreachable|Host is down|Unknown host|not known|address, check slurm\.conf"
    r"|[Mm]unge|authentication (?:error|failure)|standby mode|shutting down|establish a configuration source"
    r"|I/O error writing script|Cannot allocate memory|No space left|(?:inactive or drain)\)|not available now"
    r"|down, drained or reserved|not usable now|try again later|presently disabled|can't be reached now"
    r"|[Uu]nable to connect to database|talking to the database|persistent connection"
)


def submission_refused(code: int | None, err: str) -> Refusal:
    """Why sbatch did not answer with a job's id.

    `code` is its exit code, negative for a signal, None where it was killed because it took too long: it may have been
    taken then, even if all that sbatch said is that it waits for room. So it is with words that nobody knows and no
    exit code of sbatch's own. Limits of account, user and QOS share one message; those on how many jobs there are will
    pass, the others not, and sbatch names the limit in a line before.
    """
    if code is None or code < 0:
        return Refusal.AMBIGUOUS
    reason = re.search(r"submission failed: (.*)", err)
    said = reason[1] if reason is not None else err
    if said.startswith("Job violates accounting/QOS policy"):
        return Refusal.OVER_LIMIT if _OVER_LIMIT.search(err) else Refusal.REJECTED
    for pattern, refusal in (
        (_AMBIGUOUS, Refusal.AMBIGUOUS),
        (_OVER_LIMIT, Refusal.OVER_LIMIT),
        (_UNAVAILABLE, Refusal.UNAVAILABLE),
    ):
        if pattern.search(said):
            return refusal
    return Refusal.REJECTED if re.search(r"^sbatch: ", err, re.MULTILINE) else Refusal.AMBIGUOUS


def question_refused(code: int | None, err: str) -> Refusal:
    """Why squeue, sacct, scontrol or scancel failed. What is not understood says nothing about any job: UNAVAILABLE."""
    if code is None:
        return Refusal.UNAVAILABLE
    for words, refusal in (
        ("Invalid job id specified", Refusal.UNKNOWN_ID),
        ("already completing or completed", Refusal.FINISHED),
        ("already finished", Refusal.FINISHED),
        ("accounting storage is disabled", Refusal.NO_ACCOUNTING),
        ("Access/permission denied", Refusal.REJECTED),
        ("Invalid field requested", Refusal.REJECTED),
        ("unrecognized option", Refusal.REJECTED),
    ):
        if words in err:
            return refusal
    return Refusal.UNAVAILABLE


def refusal_words(err: str) -> str:
    """What a command said, in one line for people: each thing once, without its own name before it."""
    lines = [re.sub(r"^\w+: (?:error|fatal): ", "", line.strip()) for line in err.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Try ", "Usage:", "usage:"))]
    return printable("; ".join(dict.fromkeys(told)), 500)
