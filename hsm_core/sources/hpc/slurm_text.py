"""Slurm's commands and what they answer: text in, text out.

What is said of Slurm here was seen with 22.05 (tests/testbed/slurm_outputs) or read in its manual pages. Columns are of
fixed width: --json and separators came with later versions than clusters have (squeue(1), --Format).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hsm_core.config.sizes import mebibytes
from hsm_core.sources.hpc.resources import Resources
from hsm_core.sources.hpc.slurm_states import OOM_SIGNAL, exit_of, exit_of_status, phase_of
from hsm_core.sources.hpc.states import JobState, Phase

_ELEMENT = re.compile(r"(\d+)(?:_(\d+))?", re.ASCII)
_TOKEN = re.compile(r"[\w.-]+", re.ASCII)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that Slurm's commands are to be run with: without those that change what they show."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    return kept | {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}


def submission_environment(environ: Mapping[str, str], resources: Resources) -> dict[str, str]:
    """The variables that sbatch is to be run with.

    Its own, SBATCH_*, count before the job script (sbatch(1), INPUT ENVIRONMENT VARIABLES): a name or an array of the
    user's would take the place of ours. Those that say where the user's jobs go stay, unless the configuration does.
    What a job that hsm runs in was given is not for the jobs it submits, which inherit the rest.
    """
    kept = environment(environ)
    said = {"ACCOUNT": resources.account, "PARTITION": resources.queue, "QOS": resources.qos}
    stay = {f"SBATCH_{name}" for name, ours in {**said, "RESERVATION": resources.reservation}.items() if ours is None}
    inside = "SLURM_JOB_ID" in kept
    return {
        name: value
        for name, value in kept.items()
        if not (name.startswith("SBATCH_") and name not in stay)
        and not (inside and name.startswith("SLURM_") and name not in _OF_THE_CLUSTER)
    }


_OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT")


# --- the queue ------------------------------------------------------------------------------------

_LARGEST_INDEX = 4_000_000
"""that an array can have, whatever MaxArraySize says (slurm.conf(5))"""
_ANY: Mapping[str, str] = MappingProxyType({})
_COLUMNS = {
    "JobArrayID": 32,
    "State": 20,
    "RestartCnt": 12,
    "exit_code": 12,
    "BatchHost": 64,
    "Name": 80,
    "Reason": 250,
}


def queue_command(ids: Iterable[str]) -> list[str]:
    """Asks the controller for all elements of jobs, also for those that ended less than MinJobAge ago.

    Ids that it does not know are left out of its answer; if it knows none it may end with an error, which
    `hsm_core.sources.hpc.slurm_refusals` calls UNKNOWN_ID.
    """
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    return ["squeue", "--noheader", "--array", "--states=all", f"--jobs={_joined(ids)}", f"--Format={columns}"]


def parse_queue(text: str, names: Mapping[str, str] = _ANY) -> dict[str, JobState]:
    """What squeue answered, by element. Lines that are none of its are passed over.

    So are jobs with another name than `names` has for their ids: a controller that is killed forgets its last jobs, and
    gives their ids to others.
    """
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        at, cells = 0, []
        for width in _COLUMNS.values():
            cells.append(line[at : at + width].strip())
            at += width
        id_, state, restarts, status, node, name, reason = cells
        if not (restarts.isdecimal() and status.isdecimal()) or name != _expected(id_, names, name)[:80]:
            continue
        phase, words = phase_of(state, "" if reason == "None" else reason)
        words = "" if phase is Phase.CANCELLED else words  # it is why the job waited
        code, signal = exit_of_status(int(status), phase)
        if signal == OOM_SIGNAL:
            phase = Phase.OUT_OF_MEMORY
        for element in _elements(id_):
            found[element] = JobState(element, phase, words, _node(node), code, signal, int(restarts))
    return found


# --- the accounting -------------------------------------------------------------------------------

_OF_STEP = re.compile(r"([^.\[]+(?:\[.*)?)(?:\.(\w+))?")
_FIELDS = ("JobID", "State", "ExitCode", "NodeList", "ReqMem", "MaxRSS", "JobName")


def accounting_command(ids: Iterable[str]) -> list[str]:
    """Asks the accounting for jobs and their steps, however long ago they ended."""
    return ["sacct", "--noheader", "--parsable2", f"--jobs={_joined(ids)}", f"--format={','.join(_FIELDS)}"]


def parse_accounting(text: str, names: Mapping[str, str] = _ANY) -> dict[str, JobState]:
    """What sacct answered, by element; what it says of the steps of one is in its state. `names` as for the queue.

    It lags behind the controller by seconds. An exit code above 127 is less by 128 here: sacct takes it for a shell's
    word for a signal.
    """
    jobs: dict[str, dict[str, str]] = {}
    steps: dict[str, list[dict[str, str]]] = {}
    for line in text.splitlines():
        row = dict(zip(_FIELDS, line.split("|", len(_FIELDS) - 1), strict=False))
        name = _OF_STEP.fullmatch(row["JobID"]) if len(row) == len(_FIELDS) else None
        if name is None:
            continue
        job, step = name.groups()
        if not step and row["JobName"] not in (_expected(job, names, row["JobName"]), _NAMELESS):
            continue
        for element in _elements(job):
            if step:
                steps.setdefault(element, []).append(row)
            else:
                jobs[element] = row
    return {element: _accounted(element, row, steps.get(element, [])) for element, row in jobs.items()}


def _accounted(element: str, row: Mapping[str, str], steps: Sequence[Mapping[str, str]]) -> JobState:
    state, _, rest = row["State"].partition(" ")
    phase, reason = phase_of(state, rest)
    code, signal = exit_of(row["ExitCode"], phase)
    peak = max((_memory(step["MaxRSS"]) or 0.0 for step in steps), default=0.0) or None
    if phase in (Phase.FAILED, Phase.CANCELLED) and _memory_ran_out(row, steps, peak):
        phase = Phase.OUT_OF_MEMORY
    return JobState(element, phase, reason, _node(row["NodeList"]), code, signal, peak=peak)


_NAMELESS = "allocation"
"""what sacct calls a job of whose start it learned before its submission"""


def _memory_ran_out(row: Mapping[str, str], steps: Sequence[Mapping[str, str]], peak: float | None) -> bool:
    # A step may run out of memory while the job's script ends with a code of its own.
    if any(one["State"] == "OUT_OF_MEMORY" or one["ExitCode"].endswith(f":{OOM_SIGNAL}") for one in (row, *steps)):
        return True
    # Where it is Slurm that looks for memory now and then (OverMemoryKill), it calls that a kill like any other.
    limit = _memory(row["ReqMem"].removesuffix("n"))
    killed = any(one["ExitCode"].endswith(":9") for one in (row, *steps))
    return killed and limit is not None and peak is not None and peak > limit


# --- looking for a job by its name ----------------------------------------------------------------


def find_command(token: str, user: str) -> list[str]:
    """Asks the controller for jobs of this name, that have not ended or did so less than MinJobAge ago."""
    return [
        "squeue",
        "--noheader",
        "--states=all",
        f"--user={user}",
        f"--name={_checked(token)}",
        "--format=%F|%j|%T|%N",
    ]


def parse_found(text: str, token: str) -> list[str]:
    """The ids of the jobs with this name in the answer to that, the oldest first. There should be one at most.

    A submission that was rejected may leave a job that failed without having had a node; it is no job.
    """
    found: set[str] = set()
    for name, job, state, node in (line.split("|") for line in text.splitlines() if line.count("|") == 3):
        id_ = re.match(r"(\d+)(?:_|$)", name)
        if job == token and id_ is not None and not (state == "FAILED" and _node(node.strip()) is None):
            found.add(id_[1])
    return sorted(found, key=int)


def parse_submitted(text: str) -> str | None:
    """The id of the job that sbatch took, whatever else a site's sbatch prints; None: there is none."""
    found = re.findall(r"^(?:Submitted batch job )?(\d+)(?: on cluster \S+|;\S+)?\s*$", text, re.MULTILINE | re.ASCII)
    return found[-1] if found else None


def cancel_command(elements: Iterable[str]) -> list[str]:
    """Cancels elements and jobs; those that have ended already are no error."""
    indices: dict[str, list[int]] = {}
    whole: list[str] = []
    for element in elements:
        job, index = _split(element)
        if index is None:
            whole.append(job)
        else:
            indices.setdefault(job, []).append(index)
    arrays = [f"{job}_[{_ranges(found)}]" for job, found in indices.items()]
    return ["scancel", "--quiet", *dict.fromkeys(whole), *arrays]


# --- the cluster's configuration ------------------------------------------------------------------

CONFIG_COMMAND = ("scontrol", "show", "config")


@dataclass(frozen=True)
class SlurmConfig:
    """What of a cluster's configuration matters to who submits."""

    version: str = ""
    max_array_size: int = 1001
    """elements that an array has at most, if their indices begin at 0; 0: there are no arrays"""
    max_job_count: int = 10000
    """elements of all users that the controller has at a time"""
    accounting: bool = False
    """whether sacct has anything to tell"""


def parse_config(text: str) -> SlurmConfig:
    """What `scontrol show config` answered; what it does not say has Slurm's own default (slurm.conf(5))."""
    said = {key: value for key, value in re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE)}
    default = SlurmConfig()

    def number(key: str, otherwise: int) -> int:
        found = re.match(r"\d+", said.get(key, ""))
        return int(found[0]) if found else otherwise

    return SlurmConfig(
        version=said.get("SLURM_VERSION", ""),
        max_array_size=number("MaxArraySize", default.max_array_size),
        max_job_count=number("MaxJobCount", default.max_job_count),
        accounting=said.get("AccountingStorageType", "").endswith(("slurmdbd", "mysql")),
    )


# --- names and numbers -----------------------------------------------------------------------------


def _node(text: str) -> str | None:
    return None if text in ("", "n/a", "(null)", "None assigned", "Unknown") else text


def _memory(text: str) -> float | None:
    """MiB of a size in Slurm's words; None where it says none."""
    try:
        return mebibytes(text)
    except ValueError:
        return None


def _elements(name: str) -> Iterator[str]:
    """The elements of `12`, `12_3`, `12_[3-5,8%2]` and of the last cut off in its middle."""
    found = re.match(r"(\d+)_\[([^\]%]*)(?:%\d+)?(\]?)", name, re.ASCII)
    if found is None:
        if _ELEMENT.fullmatch(name):
            yield name
        return
    parts = found[2].split(",")
    for part in parts if found[3] else parts[:-1]:
        numbers = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part, re.ASCII)
        if numbers is not None:
            first, last, step = int(numbers[1]), int(numbers[2] or numbers[1]), int(numbers[3] or 1)
            if last > _LARGEST_INDEX or step < 1:
                return
            yield from (f"{found[1]}_{index}" for index in range(first, last + 1, step))


def _expected(name: str, names: Mapping[str, str], otherwise: str) -> str:
    return names.get(name.partition("_")[0], otherwise)


def _split(element: str) -> tuple[str, int | None]:
    """Job and index. Raises ValueError for what is no element: it would become part of a command."""
    found = _ELEMENT.fullmatch(element)
    if found is None:
        raise ValueError(f"{element!r} is no job of Slurm")
    return found[1], None if found[2] is None else int(found[2])


def _joined(ids: Iterable[str]) -> str:
    """The jobs that ids belong to: Slurm is asked for whole arrays, which takes it less."""
    jobs = list(dict.fromkeys(_split(one)[0] for one in ids))
    assert jobs, "without ids all jobs would be asked for"
    return ",".join(jobs)


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{token!r} is no name that hsm gives its jobs")
    return token


def _ranges(indices: Iterable[int]) -> str:
    """`1,3-5` for 1, 3, 4, 5."""
    spans: list[list[int]] = []
    for index in sorted(set(indices)):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
