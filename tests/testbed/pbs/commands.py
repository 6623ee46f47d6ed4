"""The stand-in's commands: each takes what a client sent, and says what PBS would."""

from __future__ import annotations

import getopt
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.testbed.pbs import listing
from tests.testbed.pbs.job import HOST, Job
from tests.testbed.pbs.machine import kill_session
from tests.testbed.pbs.refusal import USAGE, Refused
from tests.testbed.pbs.request import parse
from tests.testbed.pbs.server import Server


@dataclass
class Call:
    """A command somebody gave."""

    argv: Sequence[str]
    cwd: str
    environ: dict[str, str]
    stdin: str
    user: str


@dataclass
class Said:
    out: str = ""
    err: str = ""
    code: int = 0


def answer(server: Server, call: Call) -> Said:
    """What a command says."""
    program = call.argv[0]
    try:
        return _COMMANDS[program](server, call)
    except Refused as e:
        return Said(err=e.err, code=e.code)


def _qsub(server: Server, call: Call) -> Said:
    request = parse(call.argv, call.cwd, call.environ, call.stdin)
    job = server.submit(request, call.user, call.environ)
    return Said(server.settings.banner + f"{job.id}\n" if request.print_id else "")


def _qstat(server: Server, call: Call) -> Said:
    known = "BftxwJpHanes1u:" if server.settings.old else "BftxEF:wD:JpHanes1u:"
    try:
        given, ids = getopt.gnu_getopt(list(call.argv[1:]), known)
    except getopt.GetoptError as e:
        return Said(err=f"qstat: invalid option -- '{e.opt}'\n{USAGE['qstat']}", code=2)
    options = dict(given)
    if options.get("-F", "json") != "json":
        return Said(err=USAGE["qstat"], code=2)
    history = "-x" in options
    json = "-F" in options
    if "-B" in options:
        return Said(listing.server(server.settings.max_array_size))
    found: list[Job] = []
    err, code = "", 0
    if history and not server.settings.history:
        err = "".join(f"qstat: PBS is not configured to maintain job history {id}\n" for id in ids or [""])
        return Said(listing.document([], False) if json else "", err)
    for text in ids or [""]:
        try:
            jobs = list(server.jobs.values()) if not text else server.find(text, "qstat")
            over = [job for job in jobs if job.letter in "F"]
            if over and text and not history:
                words = f"qstat: {over[0].id} Job has finished, use -x or -H to obtain historical job information"
                raise Refused(words, 35)
            found += [job for job in jobs if history or job not in over]
        except Refused as e:
            if "-E" not in options or e.code == 1:
                err, code = err + e.err, e.code
    if "-E" in options:
        found.sort(key=lambda job: job.seq)
    elif json and len(ids) > 1 and found:
        # openpbs issue 2672
        found = found[:1]
    if "-t" in options:
        found = [one for job in found for one in ([job, *job.subjobs] if job.is_array else [job])]
    if json:
        out = listing.document(found, server.settings.raw)
    elif "-f" in options:
        out = listing.full(found, None if "-w" in options else 81)
    else:
        out = listing.table(found)
    return Said(out, err, code)


def _each(server: Server, call: Call, program: str, ids: Sequence[str], do: Callable[[Job], None]) -> Said:
    """Do something to each job; one that refuses does not stop the others, and its code is the last."""
    err, code = "", 0
    for text in ids:
        try:
            [job, *_] = server.find(text, program)
            do(job)
        except Refused as e:
            err, code = err + e.err, e.code
    return Said("", err, code)


def _qdel(server: Server, call: Call) -> Said:
    options, ids = getopt.getopt(list(call.argv[1:]), "xW:")
    if not ids:
        raise Refused("", 2, "qdel")

    def delete(job: Job) -> None:
        if job.parent is not None and job.letter in "XF":
            raise Refused(f"qdel: Request invalid for finished array subjob {job.id}", 55)
        if job.letter == "F" and ("-x", "") in options:
            del server.jobs[job.seq]
        elif job.letter == "F":
            raise Refused(f"qdel: Job has finished {job.id}", 35)
        else:
            server.delete(job, f"{call.user}@{HOST}")

    return _each(server, call, "qdel", ids, delete)


def _qsig(server: Server, call: Call) -> Said:
    options, ids = getopt.getopt(list(call.argv[1:]), "s:")
    name = dict(options).get("-s", "SIGTERM").removeprefix("SIG")
    number = int(name) if name.isdigit() else getattr(signal, f"SIG{name}", None)
    if number is None:
        raise Refused(f"qsig: Unknown/illegal signal name {ids[0]}", 157)

    def send(job: Job) -> None:
        if job.letter == "F":
            raise Refused("qsig: Job has finished", 35)
        if job.process is None or job.letter != "R":
            raise Refused(f"qsig: Request invalid for state of job {job.id}", 168)
        kill_session(job.process.pid, number)

    return _each(server, call, "qsig", ids, send)


def _qrerun(server: Server, call: Call) -> Said:
    def rerun(job: Job) -> None:
        if not server.settings.operator:
            raise Refused(f"qrerun: Unauthorized Request  {job.id}", 159)
        if not job.request.rerunnable:
            raise Refused(f"qrerun: job is not rerunnable {job.id}", 190)
        if job.letter != "R":
            raise Refused(f"qrerun: Request invalid for state of job {job.id}", 168)
        server.rerun(job)

    return _each(server, call, "qrerun", call.argv[1:], rerun)


def _hold(program: str, letter: str, substate: int, hold: str) -> Callable[[Server, Call], Said]:
    def command(server: Server, call: Call) -> Said:
        def do(job: Job) -> None:
            if job.letter == "F":
                raise Refused(f"{program}: Job has finished", 35)
            if job.parent is not None:
                raise Refused(f"{program}: Invalid request {job.id}", 156)
            began = any(subjob.stime is not None for subjob in job.subjobs)
            job.hold = hold
            if job.letter in "QHB":
                job.change("B" if began and letter == "Q" else letter, 70 if began and letter == "Q" else substate)

        return _each(server, call, program, call.argv[1:], do)

    return command


def _qselect(server: Server, call: Call) -> Said:
    options = dict(getopt.getopt(list(call.argv[1:]), "xTHJN:u:s:q:")[0])
    if "-x" in options and not server.settings.history:
        return Said(err="qselect: PBS is not configured to maintain job history\n")
    found = [
        job.id
        for job in server.jobs.values()
        if options.get("-N", job.request.name) == job.request.name
        and options.get("-u", job.owner) == job.owner
        and job.letter in options.get("-s", job.letter)
        and ("-x" in options or job.letter != "F")
    ]
    return Said("".join(f"{id}\n" for id in found))


def _pbsnodes(server: Server, call: Call) -> Said:
    ncpus = server.settings.ncpus
    return Said(
        f"{HOST}\n     Mom = {HOST}\n     ntype = PBS\n     state = free\n     pcpus = {ncpus}\n"
        f"     resources_available.host = {HOST}\n     resources_available.ncpus = {ncpus}\n\n"
    )


_COMMANDS = {
    "qsub": _qsub,
    "qstat": _qstat,
    "qdel": _qdel,
    "qsig": _qsig,
    "qrerun": _qrerun,
    "qhold": _hold("qhold", "H", 20, "u"),
    "qrls": _hold("qrls", "Q", 10, "n"),
    "qselect": _qselect,
    "pbsnodes": _pbsnodes,
}
