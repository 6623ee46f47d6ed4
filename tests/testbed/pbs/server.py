"""The stand-in's server: which jobs there are, which of them run, and how each ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.pbs.job import HOST, Job, began
from tests.testbed.pbs.machine import Machine, kill_session, now
from tests.testbed.pbs.refusal import Refused
from tests.testbed.pbs.request import Request


@dataclass
class Settings:
    """What an administrator sets."""

    ncpus: int = 4
    history: bool = True
    operator: bool = False
    """whether who asks is one, who may rerun jobs"""
    max_queued: int | None = None
    max_array_size: int = 10000
    max_walltime: int | None = None
    kill_delay: float = 2.0
    """seconds between SIGTERM and SIGKILL"""
    scheduling: bool = True
    old: bool = False
    """qstat knows neither `-E` nor `-F`"""
    raw: bool = False
    """qstat prints JSON as the release 23.06.06 does"""
    banner: str = ""
    """that qsub prints before the id"""


class Server:
    """Jobs in memory, their processes on this machine."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings()
        self.machine = Machine(folder)
        self.jobs: dict[int, Job] = {}
        self._next = 1
        self._dependents: list[Job] = []

    def submit(self, request: Request, owner: str, environ: dict[str, str]) -> Job:
        """Take a job. Raises Refused."""
        settings = self.settings
        if request.queue.split("@")[0] != "workq":
            raise Refused("qsub: Unknown queue", 170)
        if len(request.indices) > settings.max_array_size:
            raise Refused("qsub: Array job exceeds server or queue size limit", 3)
        if settings.max_walltime is not None and (request.walltime or 0) > settings.max_walltime:
            raise Refused("qsub: Job violates queue and/or server resource limits", 188)
        queued = sum(len(job.subjobs) or 1 for job in self.jobs.values() if job.letter not in "FX")
        if settings.max_queued is not None and queued + (len(request.indices) or 1) > settings.max_queued:
            raise Refused(f"qsub: Maximum number of jobs for user {owner} already in complex", 38)
        job = Job(self._next, request, owner, environ)
        self._next += 1
        job.subjobs = [Job(job.seq, request, owner, environ, index=i, parent=job) for i in request.indices]
        if request.hold:
            job.hold = "u"
            job.change("H", 20)
        if request.depend is not None:
            job.hold = "s"
            job.change("H", 22)
            self._dependents.append(job)
        self.jobs[job.seq] = job
        return job

    def living(self) -> Iterator[Job]:
        """All jobs and subjobs with a process."""
        for job in self.jobs.values():
            for one in job.subjobs or [job]:
                if one.letter == "R":
                    yield one

    def turn(self) -> float:
        """Do what is due. Returns in how many seconds there may be more, unless a process ends before."""
        due = now() + 1.0
        for job in list(self.living()):
            assert job.process is not None
            if job.process.poll() is not None:
                self._ended(job)
                continue
            limit = job.request.walltime
            if limit is not None and job.doomed is None and job.stime is not None:
                if time.time() - job.stime >= limit:
                    used = int(time.time() - job.stime)
                    self.machine.tell(job, f"=>> PBS: job killed: walltime {used} exceeded limit {limit}\n")
                    self.kill(job, "walltime")
                else:
                    due = min(due, now() + limit - (time.time() - job.stime))
            if job.kill_at is not None:
                if now() >= job.kill_at:
                    kill_session(job.process.pid, signal.SIGKILL)
                    job.kill_at = None
                else:
                    due = min(due, job.kill_at)
        self._release()
        if self.settings.scheduling:
            self._schedule()
        return max(due - now(), 0.0)

    def kill(self, job: Job, why: str) -> None:
        """TERM now, KILL after a while; what that was for shows when it has ended."""
        assert job.process is not None
        job.doomed = job.doomed or why
        job.kill_at = job.kill_at or now() + self.settings.kill_delay
        kill_session(job.process.pid, signal.SIGTERM)

    def delete(self, job: Job, by: str) -> None:
        """As qdel does it."""
        for one in job.subjobs or [job]:
            if one.letter == "R":
                self.kill(one, by)
            elif one.parent is not None:
                if one.letter == "X" and job.is_array:
                    one.own_record = False
                    one.change("X", 91)
                elif one.letter != "X":
                    one.own_record = False
                    one.change("X", 70)
                one.parent.status = 1
        if job.is_array:
            job.doomed = by
            self._array_ended(job)
        elif job.parent is not None:
            self._array_ended(job.parent)
        elif job.letter != "R":
            self._gone(job, 91, None, f"{job.comment} and terminated" if job.comment else None)

    def preempt(self, id: str) -> None:
        """As a scheduler does it to give the place to another job: told to end, and queued again."""
        [job] = self.find(id, "preempt")
        self.kill(job, "rerun")

    def rerun(self, job: Job) -> None:
        """As qrerun does it: killed at once, and queued again."""
        assert job.process is not None
        job.doomed = "rerun"
        kill_session(job.process.pid, signal.SIGKILL)

    def _ended(self, job: Job) -> None:
        assert job.process is not None
        self.machine.finish(job)
        code = job.process.returncode
        status = code if code >= 0 else 256 - code
        why, job.doomed, job.kill_at = job.doomed, None, None
        if why == "rerun":
            job.change("Q", 10)
            job.process, job.stime = None, None
            return
        job.obittime = time.time()
        ran = f"Job run at {began(job.stime or 0)} on {job.vnode}"
        if why == "walltime":
            self._gone(job, 93, -29, f"{ran} and exceeded resource walltime")
        elif why is not None:
            self._gone(job, 91, status, f"{ran} and terminated by {why}")
        else:
            self._gone(job, 93 if status else 92, status, f"{ran} and {'failed' if status else 'finished'}")

    def _gone(self, job: Job, substate: int, status: int | None, comment: str | None) -> None:
        job.status, job.comment = status, comment
        if job.parent is not None:
            job.own_record = self.settings.history
            job.change("X", substate if self.settings.history else 70)
            bad = 2 if (status or 0) < 0 else 1 if status or substate == 91 else 0
            job.parent.status = max(job.parent.status or 0, bad)
            self._array_ended(job.parent)
            return
        job.change("F", substate)
        if not self.settings.history:
            del self.jobs[job.seq]

    def _array_ended(self, array: Job) -> None:
        """An array ends with the last of its subjobs."""
        if any(subjob.letter != "X" for subjob in array.subjobs):
            return
        substate = 91 if array.doomed else 93 if array.status else 92
        words = "terminated" if array.doomed else "failed" if array.status else "finished"
        array.obittime = time.time()
        array.comment = f"{array.comment} and {words}" if array.comment else None
        array.change("F", substate)
        for subjob in array.subjobs:
            subjob.change("F", subjob.substate if subjob.own_record else substate)
        if not self.settings.history:
            del self.jobs[array.seq]

    def _release(self) -> None:
        """Let go, or delete, the jobs that waited for others."""
        for job in list(self._dependents):
            assert job.request.depend is not None
            kind, *ids = job.request.depend.split(":")
            befores = [self.jobs.get(int(id.split("[")[0].split(".")[0])) for id in ids]
            if job.letter != "H":
                self._dependents.remove(job)
            elif any(before is not None and before.letter != "F" for before in befores):
                continue
            elif all(before is not None and _satisfied(kind, before) for before in befores):
                self._dependents.remove(job)
                job.request.depend, job.hold = None, "n"
                job.change("Q", 10)
            else:
                self._dependents.remove(job)
                self._gone(job, 92, None, None)

    def _schedule(self) -> None:
        free = self.settings.ncpus - sum(job.request.total("ncpus") for job in self.living())
        for job in list(self.jobs.values()):
            if job.letter not in "QB":
                continue
            wanted = job.request.total("ncpus")
            if wanted > self.settings.ncpus:
                total = self.settings.ncpus
                job.comment = (
                    f"Can Never Run: Insufficient amount of resource: ncpus (R: {wanted} A: {total} T: {total})"
                )
                continue
            for one in job.subjobs or [job]:
                running = sum(subjob.letter == "R" for subjob in job.subjobs)
                if one.letter != "Q" or (job.request.max_run is not None and running >= job.request.max_run):
                    continue
                if wanted > free:
                    if job.letter == "Q":
                        job.comment = "Not Running: Not enough free nodes available"
                    break
                free -= wanted
                self._start(one)

    def _start(self, job: Job) -> None:
        job.run_count += 1
        job.stime, job.slot = time.time(), 0
        job.change("R", 42)
        job.comment = f"Job run at {began(job.stime)} on {job.vnode}"
        if job.parent is not None and job.parent.letter == "Q":
            job.parent.stime = job.stime
            job.parent.comment = f"Job Array Began at {began(job.stime)}"
            job.parent.change("B", 70)
        self.machine.start(job)

    def find(self, text: str, program: str) -> list[Job]:
        """The job, array or subjobs that an id means. Raises Refused."""
        number, _, rest = text.partition("[")
        index, _, host = rest.partition("]") if rest else ("", "", "")
        if not rest:
            number, _, host = number.partition(".")
        if not number.isdigit() or host.lstrip(".") not in ("", HOST):
            raise Refused(f"{program}: illegally formed job identifier: {text}", 1)
        job = self.jobs.get(int(number))
        full = f"{number}{f'[{index}]' if rest else ''}.{HOST}"
        unknown = Refused(f"{program}: Unknown Job Id {full}", 153)
        if job is None or job.is_array != bool(rest):
            raise unknown
        if not index:
            return [job]
        low, _, high = index.partition("-")
        wanted = range(int(low), int(high or low) + 1)
        found = [subjob for subjob in job.subjobs if subjob.index in wanted]
        if not found:
            raise unknown if program == "qstat" else Refused(f"{program}: Invalid request {full}", 156)
        return found


def _satisfied(kind: str, before: Job) -> bool:
    if before.status is None:
        return kind in ("afterany", "after")
    return {"afterok": before.status == 0, "afternotok": before.status != 0}.get(kind, True)
