"""PBS's words: job ids, the command lines of qsub and its kin, and what these say when they refuse.

Text in, text out; `hsm_core.pbs.command` runs the commands, `hsm_core.pbs.status` reads what qstat answers. What is
said of PBS here was recorded from OpenPBS 23.06.06 (tests/pbs/recorded), or read in its `pbs_messages.c` and
`pbs_error.h`.

A job has two names. The native one is PBS's: `53.pbs1`, `70[].pbs1` for an array, `70[2].pbs1` for one of its subjobs.
The element is ours, fit for the names of files and as submitit writes it: `53.pbs1`, `70.pbs1_2`. Both keep the
server's name, as a number means another job on another server; without one, PBS takes the default server.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAME_LIMIT = 15
"""characters of a job's name that every version takes; OpenPBS since 20 takes 230"""

_NATIVE = re.compile(r"(\d+)(?:\[(\d*)\])?(?:\.(\S+))?")
_ELEMENT = re.compile(r"(\d+)(?:\.(\S+?))?(?:_(\d+))?")
_ID_LINE = re.compile(r"^\s*(\d+(?:\[\])?\.[\w.-]+)\s*$", re.MULTILINE)


class Refusal(enum.Enum):
    """Why a command was refused, by what the caller can do about it."""

    REJECTED = "rejected"
    """the same request will always be refused"""
    UNAVAILABLE = "unavailable"
    """the server, or the job's node, can't be asked now; nothing was done"""
    OVER_LIMIT = "over limit"
    """too many jobs, or too much, is in the queue: it will be taken once some have ended"""
    UNKNOWN_ID = "unknown id"
    """the server has no such job: it ended without history, was purged, or never was"""
    FINISHED = "finished"
    """the job has ended"""
    NOT_ALLOWED = "not allowed"
    """this user may not do that"""
    AMBIGUOUS = "ambiguous"
    """it may have been done or not: look before it is done again"""


class PbsError(Exception):
    """A command of PBS was refused. Its text quotes the command's; `refusal` is what to go by."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    command: Sequence[str]
    code: int | None
    """its exit code, negative for a signal; None where it did not end in its time and was killed"""
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its complaint in one line, without the usage that may follow."""
        complaint = re.split(r"^usage:", self.err, maxsplit=1, flags=re.IGNORECASE | re.MULTILINE)[0]
        return "; ".join(line.strip() for line in complaint.splitlines() if line.strip())


# Which words mean what; the first that fits counts. They come before exit codes, as those are 15xxx & 255 and collide.
_WORDS = [
    (
        Refusal.UNAVAILABLE,
        r"cannot connect to server|couldn't connect to cluster|could not connect to mom|all reserved ports in use"
        r"|no free connections|connection table full|server shutting down|resource temporarily unavailable"
        r"|resource busy|could not contact scheduler|license server is down",
    ),
    (Refusal.OVER_LIMIT, r"would exceed .*limit|maximum number of jobs"),
    (Refusal.UNKNOWN_ID, r"unknown job id"),
    (Refusal.FINISHED, r"job has finished|finished array subjob"),
    (Refusal.NOT_ALLOWED, r"unauthorized request"),
    (Refusal.AMBIGUOUS, r"batch protocol error|end of file|internal error|system error|timed out|connection reset"),
]
_CODES = {
    15001: Refusal.UNKNOWN_ID,
    15007: Refusal.NOT_ALLOWED,
    15008: Refusal.UNAVAILABLE,
    15010: Refusal.UNAVAILABLE,
    15033: Refusal.UNAVAILABLE,
    15060: Refusal.UNAVAILABLE,
    15070: Refusal.UNAVAILABLE,
    15139: Refusal.FINISHED,
    15142: Refusal.OVER_LIMIT,
    15143: Refusal.OVER_LIMIT,
    15159: Refusal.FINISHED,
}
"""PBSE_* of `pbs_error.h`; a command ends with the lowest byte"""
_BY_BYTE = {code & 255: refusal for code, refusal in _CODES.items()}


def refusal(answer: Answer) -> Refusal | None:
    """How a command was refused; None if it was not.

    With several ids, the worst of what it said of any: a server that is away says nothing of the others.
    """
    if answer.code == 0:
        return None
    kind = _kind(answer)
    # Whoever only asked can ask again.
    return Refusal.UNAVAILABLE if kind is Refusal.AMBIGUOUS and answer.command[0] in ("qstat", "qselect") else kind


def _kind(answer: Answer) -> Refusal:
    if answer.code is None or answer.code < 0:
        return Refusal.AMBIGUOUS
    for kind, words in _WORDS:
        if re.search(words, answer.err, re.IGNORECASE):
            return kind
    if answer.command[0] == "qstat" and answer.code == 255:  # qstat's own, for a server that can't be reached
        return Refusal.UNAVAILABLE
    return Refusal.REJECTED if answer.err.strip() else _BY_BYTE.get(answer.code, Refusal.REJECTED)


def error(answer: Answer, what: str) -> PbsError | None:
    """The error to raise for a refused command, which begins with `what`; None if it was not refused."""
    kind = refusal(answer)
    if kind is None:
        return None
    if answer.code is None:
        why = f"{answer.command[0]} did not answer in time"
    elif answer.code < 0:
        why = f"{answer.command[0]} was killed by signal {-answer.code}"
    else:
        why = answer.said or f"{answer.command[0]} ended with exit code {answer.code} and said nothing"
    return PbsError(f"{what}: {why}{_ADVICE.get(kind, '')}", kind)


_ADVICE = {
    Refusal.UNAVAILABLE: ". The PBS server can't be reached now; try again later",
    Refusal.OVER_LIMIT: ". Jobs must end before more are taken; submit again later, or fewer at once",
    Refusal.AMBIGUOUS: ". It may have been done all the same: look with qstat before it is done again",
}


def element(native: str) -> str:
    """Our name of a job: `70[2].pbs1` becomes `70.pbs1_2`; an array itself, `70[].pbs1`, `70.pbs1`.

    Raises ValueError where that is no id of PBS.
    """
    number, index, server = _parts(native)
    return f"{number}{f'.{server}' if server else ''}{f'_{index}' if index else ''}"


def native(element: str) -> str:
    """PBS's name of a job or subjob: `70.pbs1_2` becomes `70[2].pbs1`.

    Raises ValueError where `element` is none.
    """
    number, server, index = _element_parts(element)
    return f"{number}{f'[{index}]' if index else ''}{f'.{server}' if server else ''}"


def whole(element: str) -> str:
    """The native id under which PBS tells of a job and, for a subjob, of all its array: `70.pbs1_2`, `70[].pbs1`."""
    number, server, index = _element_parts(element)
    return f"{number}{'[]' if index else ''}{f'.{server}' if server else ''}"


def member(native: str, index: int) -> str:
    """The name of the element with this index, of an array or of a job that is none: `70[].pbs1`, 2 is `70.pbs1_2`."""
    return f"{element(native)}_{index}" if "[]" in native else element(native)


def same(element: str, other: str) -> bool:
    """Whether both mean one job: a name without a server means that number on any."""
    a, b = _element_parts(element), _element_parts(other)
    return (a[0], a[2]) == (b[0], b[2]) and (a[1] == b[1] or not a[1] or not b[1])


def _parts(native: str) -> tuple[str, str, str]:
    found = _NATIVE.fullmatch(native)
    if found is None:
        raise ValueError(f"{native!r} is no job id of PBS, such as 53.server or 70[2].server")
    return found[1], found[2] or "", found[3] or ""


def _element_parts(element: str) -> tuple[str, str, str]:
    found = _ELEMENT.fullmatch(element)
    if found is None:
        raise ValueError(f"{element!r} is no name of a job, such as 53.server or 70.server_2")
    return found[1], found[2] or "", found[3] or ""


def submitted_id(answer: Answer) -> str:
    """The native id that qsub printed, on a line of its own among whatever else a site has it print.

    A job with an id was taken, however qsub ended: with `-W block=true`, as the job did. Raises PbsError where qsub
    refused, or was not understood.
    """
    ids = _ID_LINE.findall(answer.out)
    failed = error(answer, "PBS did not take the job") if not ids else None
    if failed is not None:
        raise failed
    if len(set(ids)) != 1:
        raise PbsError(
            f"qsub gave no job id that could be told: it printed {answer.out!r}. The job may be in the queue: look "
            "with qstat before it is submitted again",
            Refusal.AMBIGUOUS,
        )
    return str(ids[0])


def cancel_command(elements: Iterable[str]) -> list[str]:
    """Delete jobs and subjobs, queued or running."""
    return ["qdel", *map(native, elements)]


def signal_command(element: str, name: str) -> list[str]:
    """Send a signal (`SIGUSR2`) to the processes of a running job."""
    return ["qsig", "-s", name, native(element)]


def rerun_command(element: str) -> list[str]:
    """Kill a running job and queue it again under its id; for operators of the server only."""
    return ["qrerun", native(element)]


def name_for(token: str) -> str:
    """A job's name that stands for a token and fits every version: `hsm-` and 11 characters made of it (55 bits)."""
    digest = base64.b32encode(hashlib.sha256(token.encode()).digest()).decode().lower()
    return f"hsm-{digest}"[:NAME_LIMIT]


def find_command(name: str, history: bool = True) -> list[str]:
    """Ask for the ids of the jobs with exactly this name; with `history`, of those that have ended too.

    The name is the one field that the submitter chooses freely, every version keeps, and the server can filter by:
    `-A` and `-P` mean something to the site, `comment` is an operator's, Variable_List and Submit_arguments are shown
    but can't be searched (subjobs that ran have no Submit_arguments).
    """
    return ["qselect", *(["-x"] if history else []), "-N", name]


def found_ids(answer: Answer) -> list[str] | None:
    """The native ids that qselect printed, those of arrays as `70[].pbs1`; None if there is no history to ask for.

    An empty list of a server without history says nothing of jobs that have ended. Raises PbsError where qselect was
    refused.
    """
    if lacks_history(answer):
        return None
    failed = error(answer, "PBS could not be asked for a job by its name")
    if failed is not None:
        raise failed
    return [str(line) for line in _ID_LINE.findall(answer.out)]


def lacks_history(answer: Answer) -> bool:
    """Whether the server keeps no ended jobs; `-x` is then refused for all, and the exit code is 0 none the less."""
    return "not configured to maintain job history" in answer.err
