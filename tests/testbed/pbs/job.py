"""The stand-in's record of a job, and what qstat shows of it: PBS's fields, in PBS's order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any
from xml.sax.saxutils import escape

from tests.testbed.pbs.request import Request, amount

HOST = "pbs1"


@dataclass
class Job:
    """A job, an array or a subjob."""

    seq: int
    request: Request
    owner: str
    environ: Mapping[str, str]
    index: int | None = None
    parent: Job | None = None
    subjobs: list[Job] = field(default_factory=list)
    letter: str = "Q"
    substate: int = 10
    hold: str = "n"
    comment: str | None = None
    ctime: float = field(default_factory=time.time)
    mtime: float = field(default_factory=time.time)
    stime: float | None = None
    obittime: float | None = None
    run_count: int = 0
    status: int | None = None
    own_record: bool = True
    """false for a subjob of which only the array's record is left"""
    process: Popen[bytes] | None = None
    slot: int = 0
    doomed: str | None = None
    """why it is being killed: `walltime`, `rerun`, or who deleted it"""
    kill_at: float | None = None
    outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """where output is written while it runs, and where it goes at the end"""

    @property
    def id(self) -> str:
        brackets = "[]" if self.request.indices and self.parent is None else ""
        brackets = f"[{self.index}]" if self.parent is not None else brackets
        return f"{self.seq}{brackets}.{HOST}"

    @property
    def is_array(self) -> bool:
        return bool(self.request.indices) and self.parent is None

    @property
    def vnode(self) -> str:
        parts = []
        for count, chunk in self.request.chunks:
            text = f"({HOST}:ncpus={chunk['ncpus']}"
            text += f":mem={amount(chunk['mem']) // 1024}kb)" if "mem" in chunk else ")"
            parts += [text] * count
        return "+".join(parts)

    @property
    def host(self) -> str:
        counts = [int(chunk["ncpus"]) for count, chunk in self.request.chunks for _ in range(count)]
        return "+".join(f"{HOST}/{self.slot + i}{f'*{n}' if n > 1 else ''}" for i, n in enumerate(counts))

    def change(self, letter: str, substate: int) -> None:
        self.letter, self.substate, self.mtime = letter, substate, time.time()

    def output_path(self, stream: str) -> str:
        """Where its output goes by its request: `o` or `e`."""
        asked = self.request.out if stream == "o" else self.request.err
        return f"{self.request.workdir}/{self.request.name}.{stream}{self.seq}" if asked is None else asked


def stamp(moment: float) -> str:
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(moment))


def began(moment: float) -> str:
    return time.strftime("%a %b %d at %H:%M", time.localtime(moment))


def clock(seconds: float) -> str:
    return f"{int(seconds) // 3600:02}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def attributes(job: Job) -> dict[str, Any]:
    """What qstat shows of a job."""
    if job.parent is not None and (job.stime is None or not job.own_record):
        return _shadow(job)
    started = job.stime is not None and not job.is_array
    shown: dict[str, Any] = {"Job_Name": job.request.name, "Job_Owner": f"{job.owner}@{HOST}"}
    if started:
        assert job.stime is not None
        shown["resources_used"] = {
            "cpupercent": 0,
            "cput": "00:00:00",
            "mem": "0kb",
            "ncpus": job.request.total("ncpus"),
            "vmem": "0kb",
            "walltime": clock((job.obittime or time.time()) - job.stime),
        }
    whole = job.parent is None
    shown |= {"job_state": job.letter, "queue": job.request.queue, "server": HOST}
    shown |= {"Account_Name": job.request.account} if job.request.account else {}
    shown |= {"Checkpoint": "u"} if whole else {}
    shown["ctime"] = stamp(job.ctime)
    shown |= {"depend": f"{job.request.depend}@{HOST}"} if job.request.depend and whole else {}
    shown["Error_Path"] = f"{HOST}:{job.output_path('e')}"
    shown |= {"exec_host": job.host, "exec_vnode": job.vnode} if started else {}
    shown |= {"Hold_Types": job.hold} if whole else {}
    shown |= {"Join_Path": job.request.join, "Keep_Files": job.request.keep, "Mail_Points": "a"}
    shown |= {"mtime": stamp(job.mtime), "Output_Path": f"{HOST}:{job.output_path('o')}", "Priority": 0}
    shown |= {"qtime": stamp(job.ctime), "Rerunable": str(job.request.rerunnable)}
    shown["Resource_List"] = _resource_list(job)
    shown |= {"stime": stamp(job.stime)} if job.stime is not None else {}
    shown |= {"obittime": stamp(job.obittime)} if job.obittime is not None else {}
    shown |= {"session_id": job.process.pid, "jobdir": job.environ["HOME"]} if started and job.process else {}
    shown |= {"substate": job.substate, "Variable_List": _variable_list(job)}
    shown |= {"comment": job.comment} if job.comment else {}
    shown |= {"etime": stamp(job.ctime)} if job.hold == "n" else {}
    shown |= {"run_count": job.run_count} if job.run_count else {}
    shown |= {"Stageout_status": 1, "Exit_status": job.status} if job.status is not None else {}
    shown |= {"Submit_arguments": job.request.arguments} if whole else {}
    shown |= _executable(job)
    if job.is_array:
        shown |= _array(job)
    elif not whole:
        shown |= {"array_id": job.parent.id if job.parent else "", "array_index": job.index}
    shown |= {"history_timestamp": int(job.mtime)} if job.letter in "FX" else {}
    shown |= {"project": job.request.project, "Submit_Host": HOST}
    shown |= {"max_run_subjobs": job.request.max_run} if job.is_array and job.request.max_run else {}
    return shown


def _shadow(job: Job) -> dict[str, Any]:
    """A subjob without a record of its own shows the array's, but for its state."""
    assert job.parent is not None
    shown = attributes(job.parent)
    for name in ("array", "array_state_count", "array_indices_submitted", "array_indices_remaining", "project"):
        shown.pop(name)
    for name in ("Submit_Host", "max_run_subjobs", "history_timestamp", "obittime"):
        shown.pop(name, None)
    shown |= {"job_state": job.letter, "substate": job.substate}
    if job.letter in "XF":
        shown["comment"] = "Subjob finished"
    return shown


def _array(job: Job) -> dict[str, Any]:
    letters = [subjob.letter for subjob in job.subjobs]
    counts = {"Queued": letters.count("Q"), "Running": letters.count("R"), "Exiting": 0, "Expired": letters.count("X")}
    waiting = [subjob.index for subjob in job.subjobs if subjob.letter == "Q" and subjob.index is not None]
    return {
        "array": "True",
        "array_state_count": " ".join(f"{name}:{count}" for name, count in counts.items()),
        "array_indices_submitted": job.request.indices_text,
        "array_indices_remaining": _ranges(waiting) or "-",
    }


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _resource_list(job: Job) -> dict[str, Any]:
    request = job.request
    listed: dict[str, Any] = {}
    if request.total("mem"):
        listed["mem"] = f"{request.total('mem') // 2**20}mb"
    listed["ncpus"] = request.total("ncpus")
    listed |= {"ngpus": request.total("ngpus")} if request.total("ngpus") else {}
    listed["nodect"] = sum(count for count, _ in request.chunks)
    listed |= {"place": request.place, "select": request.select}
    listed |= {"walltime": clock(request.walltime)} if request.walltime is not None else {}
    return listed


def _variable_list(job: Job) -> dict[str, str]:
    theirs = {f"PBS_O_{name}": job.environ.get(name, "") for name in ("HOME", "LOGNAME", "PATH", "MAIL", "SHELL")}
    return {
        **theirs,
        "PBS_O_INTERACTIVE_AUTH_METHOD": "resvport",
        "PBS_O_INTERACTIVE_ENCRYPT_METHOD": "",
        "PBS_O_WORKDIR": job.request.workdir,
        "PBS_O_SYSTEM": "Linux",
        **job.request.variables,
        "PBS_O_QUEUE": job.request.queue,
        "PBS_O_HOST": HOST,
    }


def _executable(job: Job) -> dict[str, str]:
    if not job.request.command:
        return {}
    program, *arguments = job.request.command
    shown = {"executable": f"<jsdl-hpcpa:Executable>{escape(program)}</jsdl-hpcpa:Executable>"}
    if arguments:
        marked = [f"<jsdl-hpcpa:Argument>{escape(text)}</jsdl-hpcpa:Argument>" for text in arguments]
        shown["argument_list"] = "".join(marked)
    return shown
