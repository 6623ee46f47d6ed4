"""What qstat says of jobs: how it is asked, how its answers are read, and what each state means.

One call asks for all jobs. `-t` has it tell of the subjobs of arrays, `-x` of jobs that ended, `-E` makes one query of
all ids: without it there is one privileged connection per id, and with JSON some versions print the first job only
(openpbs issue 2672). What a server or version does not know is left out from then on, see `Dialect`.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hsm_core.pbs import text
from hsm_core.pbs.text import Answer

Attributes = Mapping[str, Any]
"""what qstat shows of one job, by PBS's names"""


class Form(enum.Enum):
    """How qstat is to write; each next one is understood by older versions, or where the one before can't be read."""

    JSON = ("-E", "-f", "-F", "json")
    WIDE = ("-E", "-f", "-w")
    PLAIN = ("-f",)


@dataclass(frozen=True)
class Dialect:
    """What this server and this qstat are known to answer to."""

    form: Form = Form.JSON
    history: bool = True
    """whether ended jobs may be asked for; a server without history refuses the question for living ones too"""


class Phase(enum.Enum):
    """Where a job stands. The names are those of Slurm, by which submitit knows most of them.

    They mean what they mean in `hsm_core.sources.hpc.states`, which is not imported: submitit loads this plugin at the
    start of every job.
    """

    PENDING = enum.auto()
    HELD = enum.auto()
    """by a user or an operator, who must let it go"""
    REQUEUED = enum.auto()
    """pending again, after it ran"""
    RUNNING = enum.auto()
    """has its node, though it may be suspended there"""
    COMPLETED = enum.auto()
    FAILED = enum.auto()
    TIMEOUT = enum.auto()
    OUT_OF_MEMORY = enum.auto()
    NODE_FAIL = enum.auto()
    CANCELLED = enum.auto()
    UNKNOWN = enum.auto()
    """PBS can't say"""


@dataclass(frozen=True)
class State:
    """What PBS says of one job or subjob. It is a hint: only the job's own result tells that it did its work."""

    phase: Phase
    ended: bool = False
    """no process of it is left; true of an unknown phase where PBS knows no more than that"""
    reason: str = ""
    """in PBS's words, where it has any"""
    node: str | None = None
    """hosts it runs or ran on, joined by commas"""
    exit_code: int | None = None
    signal: int | None = None
    """that killed the job's first process"""
    restarts: int = 0
    """how often PBS started it again"""
    peak: float | None = None
    """MiB, the most memory it was seen to have"""


def command(elements: Iterable[str], dialect: Dialect) -> list[str]:
    """The one call that asks for all these jobs."""
    ids = sorted({text.whole(element) for element in elements})
    return ["qstat", *(["-x"] if dialect.history else []), "-t", *dialect.form.value, *ids]


def simpler(answer: Answer, dialect: Dialect) -> Dialect | None:
    """How to ask again, where a server or qstat did not understand this dialect, or its answer can't be read."""
    if dialect.history and text.lacks_history(answer):
        return replace(dialect, history=False)
    forms = list(Form)
    older = forms[forms.index(dialect.form) + 1 :]
    if not older:
        return None
    if answer.code == 2 and re.search(r"usage:|invalid option|conflicting options", answer.err, re.IGNORECASE):
        return replace(dialect, form=older[0])
    # A refused question has its reason in the exit code, whatever the document looks like.
    if dialect.form is Form.JSON and text.refusal(answer) in _TELLS and _json_jobs(answer.out) is None:
        return replace(dialect, form=older[0])
    return None


_TELLS = (None, text.Refusal.UNKNOWN_ID, text.Refusal.FINISHED)
"""outcomes of qstat in which it told all it knows: one id of many that is not there does not stop the others"""


def read(answer: Answer, dialect: Dialect) -> dict[str, State]:
    """The states of all jobs, subjobs and arrays in an answer, by element.

    A job that was asked for and is not in it is unknown to the server: it ended without history, was purged or never
    was. Raises PbsError where the server did not tell, which says nothing of any job.
    """
    if text.refusal(answer) not in _TELLS:
        failed = text.error(answer, "PBS did not tell the states of jobs")
        assert failed is not None
        raise failed
    jobs = _json_jobs(answer.out) if dialect.form is Form.JSON else _text_jobs(answer.out)
    # Without -E, a qstat that knows none of the jobs does not end with 0.
    silent = not answer.out.strip() and (dialect.form is not Form.PLAIN or answer.code != 0)
    if jobs is None or (not jobs and not silent and dialect.form is not Form.JSON):
        words = f"qstat answered what can't be understood, which begins with {answer.out[:200]!r}"
        raise text.PbsError(words, text.Refusal.UNAVAILABLE)
    return states(jobs)


def of(element: str, told: Mapping[str, State]) -> State | None:
    """What an answer says of one job; None if the server does not know it.

    A subjob that is not shown, of an array that is and has not ended, is not unknown to the server.
    """
    state = told.get(element)
    if state is None and "." not in element:
        state = next((found for other, found in told.items() if text.same(element, other)), None)
    array = told.get(element.rpartition("_")[0])
    if state is None and array is not None and not array.ended:
        return State(Phase.UNKNOWN, reason="PBS tells of its array only")
    return state


def _json_jobs(out: str) -> Mapping[str, Attributes] | None:
    """The jobs in qstat's JSON, None where it is none: values of variables are not always quoted as they must be."""
    try:
        document = json.loads(out, strict=False)
        jobs = document.get("Jobs", {})
        return {str(native): dict(attributes) for native, attributes in jobs.items()}
    except (ValueError, AttributeError, TypeError):
        return None


def _text_jobs(out: str) -> Mapping[str, Attributes]:
    """The jobs in the output of `qstat -f`, with lines folded or not."""
    jobs: dict[str, dict[str, Any]] = {}
    current: dict[str, Any] | None = None
    for line in out.replace("\n\t", "").split("\n"):
        if line.startswith("Job Id:"):
            current = jobs.setdefault(line.removeprefix("Job Id:").strip(), {})
        elif current is not None and line.startswith("    ") and " = " in line:
            name, _, value = line.strip().partition(" = ")
            current.setdefault(name, value)
    return jobs


def states(jobs: Mapping[str, Attributes]) -> dict[str, State]:
    """The states of jobs by element, from what qstat shows of them by native id."""
    found = {}
    for native, attributes in jobs.items():
        try:
            element = text.element(native)
        except ValueError:
            continue
        state = _state(native, attributes)
        array = jobs.get(text.whole(element)) if text.whole(element) != native else None
        if array is not None and state.phase is Phase.PENDING and array.get("job_state") == "H":
            # The subjobs of a held array still call themselves queued.
            state = _state(text.whole(element), array)
        found[element] = state
    return found


def _state(native: str, attributes: Attributes) -> State:
    """One job's state, from job_state, substate and Exit_status together (job_state alone can't tell them apart)."""
    letter = str(attributes.get("job_state", ""))
    comment = str(attributes.get("comment", ""))
    runs = _number(attributes.get("run_count")) or 0
    told = State(Phase.UNKNOWN, reason=comment, node=_nodes(attributes.get("exec_host")))
    if letter in ("Q", "H", "W", "T"):
        return replace(_waiting(letter, attributes, told), node=None, restarts=runs)
    told = replace(told, restarts=max(runs - 1, 0))
    if letter in ("R", "B", "E"):
        # E: the process has ended, its files are being copied. B: an array some of whose subjobs have started.
        return replace(told, phase=Phase.RUNNING)
    if letter in ("S", "U"):
        return replace(told, phase=Phase.RUNNING, reason="suspended")
    if letter in ("F", "X"):
        return _ended(native, attributes, told)
    return replace(told, reason="moved to another server") if letter == "M" else told


def _waiting(letter: str, attributes: Attributes, told: State) -> State:
    if letter == "H" and _number(attributes.get("substate")) == 22:
        return replace(told, phase=Phase.PENDING, reason=f"waits for {attributes.get('depend', 'a dependency')}")
    if letter == "H":
        return replace(told, phase=Phase.HELD, reason=told.reason or f"held ({attributes.get('Hold_Types', '?')})")
    if letter == "W":
        due = attributes.get("Execution_Time", "its time")
        return replace(told, phase=Phase.PENDING, reason=told.reason or f"waits for {due}")
    return replace(told, phase=Phase.REQUEUED if _number(attributes.get("run_count")) else Phase.PENDING)


def _ended(native: str, attributes: Attributes, told: State) -> State:
    told = replace(told, ended=True)
    subjob = re.search(r"\[\d+\]", native) is not None
    if subjob and "array_id" not in attributes:
        # "Subjob finished": there is no history, or it never ran. What stands there is the array's.
        return replace(told, restarts=0)
    status, substate = _number(attributes.get("Exit_status")), _number(attributes.get("substate"))
    told = replace(told, peak=_peak(attributes))
    if status is None:
        if substate == 92:
            reason = f"deleted by PBS: {attributes.get('depend', 'its dependency')} can't be satisfied any more"
            return replace(told, phase=Phase.CANCELLED, reason=told.reason or reason)
        return replace(told, phase=Phase.CANCELLED, reason=told.reason or "deleted before it ran")
    if "[]" in native:
        # 0, 1 or 2: whether all subjobs ended well. No exit code of anything.
        phase = Phase.COMPLETED if (status, substate) == (0, 92) else Phase.FAILED
        return replace(told, phase=Phase.CANCELLED if substate == 91 else phase)
    if status < 0:
        return replace(told, phase=_NEGATIVE.get(status, Phase.FAILED), reason=told.reason or f"Exit_status {status}")
    told = replace(told, signal=status - 256) if status > 256 else replace(told, exit_code=status)
    if substate == 91:
        # Also a job that caught the signal and ended well by itself: it was told to stop before it was done.
        return replace(told, phase=Phase.CANCELLED)
    return replace(told, phase=Phase.COMPLETED if status == 0 else Phase.FAILED)


_NEGATIVE = {
    -4: Phase.NODE_FAIL,  # the node's daemon was started again, and the job may not be
    -5: Phase.NODE_FAIL,
    -6: Phase.NODE_FAIL,
    -26: Phase.OUT_OF_MEMORY,  # vmem
    -27: Phase.OUT_OF_MEMORY,  # mem
    -28: Phase.TIMEOUT,  # cput
    -29: Phase.TIMEOUT,  # walltime
}
"""JOB_EXEC_* of OpenPBS's `job.h`; -4 and -29 were seen, the others read. What is not here failed to start."""


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _peak(attributes: Attributes) -> float | None:
    """MiB, of `3120kb` in resources_used; None of 0, which is of what ended before it was looked at."""
    nested = attributes.get("resources_used")
    used = nested.get("mem") if isinstance(nested, Mapping) else attributes.get("resources_used.mem")
    found = re.fullmatch(r"(\d+)kb", str(used))
    return int(found[1]) / 1024 or None if found is not None else None


def _nodes(exec_host: Any) -> str | None:
    """The hosts in `node1/0*2+node2/0*2`."""
    if not exec_host:
        return None
    return ",".join(dict.fromkeys(part.split("/")[0] for part in str(exec_host).split("+")))
