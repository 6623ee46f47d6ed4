"""Runs the stand-in's jobs: real processes, each job in a session of its own, with the environment PBS gives."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.testbed.pbs.job import HOST, Job

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"


class Machine:
    """The one node, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("spool", "scripts", "aux", "environ", "tmp"):
            (folder / name).mkdir()

    def start(self, job: Job) -> None:
        """Start a job's first process. A program that isn't there ends it with 254, as PBS's own child does."""
        if job.request.script is not None:
            script = self.folder / "scripts" / f"{job.id}.SC"
            script.write_text(job.request.script)
            script.chmod(0o700)
            # A login shell runs the script, so that a signal that kills the script becomes the shell's exit code.
            command = ["/bin/bash", "-l", "-c", f"{shlex.quote(str(script))}\nexit $?"]
        else:
            command = list(job.request.command)
        environ = self._environ(job)
        job.outputs = self._outputs(job)
        if shutil.which(command[0], path=environ["PATH"]) is None:
            command = ["/bin/sh", "-c", "exit 254"]
        with open(job.outputs["o"][0], "ab") as out, open(job.outputs["e"][0], "ab") as err:
            job.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=err if job.request.join == "eo" else out,
                stderr=out if job.request.join == "oe" else err,
                cwd=environ["HOME"],
                env=environ,
                start_new_session=True,
                umask=0o077,
            )

    def _environ(self, job: Job) -> dict[str, str]:
        nodefile = self.folder / "aux" / job.id
        places = [int(chunk.get("mpiprocs", 1)) for count, chunk in job.request.chunks for _ in range(count)]
        nodefile.write_text(f"{HOST}\n" * sum(places))
        tmp = self.folder / "tmp" / f"pbs.{job.id}"
        tmp.mkdir(exist_ok=True)
        submitter, request = job.environ, job.request
        cpus = request.chunks[0][1]["ncpus"]
        variables = {
            **request.variables,
            "ENVIRONMENT": "BATCH",
            "HOME": submitter["HOME"],
            "LOGNAME": job.owner,
            "USER": job.owner,
            "SHELL": "/bin/bash",
            "PATH": PATH,
            "NCPUS": cpus,
            "OMP_NUM_THREADS": request.chunks[0][1].get("ompthreads", cpus),
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBCOOKIE": os.urandom(16).hex().upper(),
            "PBS_JOBDIR": submitter["HOME"],
            "PBS_JOBID": job.id,
            "PBS_JOBNAME": request.name,
            "PBS_MOMPORT": "15003",
            "PBS_NODEFILE": str(nodefile),
            "PBS_NODENUM": "0",
            "PBS_O_HOME": submitter["HOME"],
            "PBS_O_HOST": HOST,
            "PBS_O_INTERACTIVE_AUTH_METHOD": "resvport",
            "PBS_O_INTERACTIVE_ENCRYPT_METHOD": "",
            "PBS_O_LOGNAME": job.owner,
            "PBS_O_MAIL": f"/var/mail/{job.owner}",
            "PBS_O_PATH": submitter.get("PATH", PATH),
            "PBS_O_QUEUE": request.queue,
            "PBS_O_SHELL": submitter.get("SHELL", "/bin/bash"),
            "PBS_O_SYSTEM": "Linux",
            "PBS_O_WORKDIR": request.workdir,
            "PBS_QUEUE": request.queue,
            "PBS_TASKNUM": "1",
            "TMPDIR": str(tmp),
        }
        if job.parent is not None:
            variables |= {"PBS_ARRAY_ID": job.parent.id, "PBS_ARRAY_INDEX": str(job.index)}
        # pbsdsh starts its programs with the job's environment, not with the caller's.
        lines = "\0".join(f"{name}={value}" for name, value in variables.items())
        (self.folder / "environ" / job.id).write_text(lines)
        return variables

    def _outputs(self, job: Job) -> dict[str, tuple[str, str]]:
        found = {}
        for stream, suffix in (("o", "OU"), ("e", "ER")):
            asked = job.request.out if stream == "o" else job.request.err
            spool = str(self.folder / "spool" / f"{job.id}.{suffix}")
            index = "" if job.index is None else f".{job.index}"
            target = job.output_path(stream) + (index if asked is None else "")
            target = os.path.join(job.request.workdir, target.split(":", 1)[-1])
            target = target.replace("^array_index^", str(job.index))
            target = f"{target}{job.id}.{suffix}" if target.endswith("/") else target
            found[stream] = (target if "d" in job.request.keep else spool, target)
        return found

    def finish(self, job: Job) -> None:
        """After the first process ended: kill the others of its session, and deliver the output."""
        assert job.process is not None
        kill_session(job.process.pid, signal.SIGKILL)
        unused = {"oe": "e", "eo": "o"}.get(job.request.join)
        for stream, (spool, target) in job.outputs.items():
            if spool == target:
                continue
            # A directory that isn't there loses the output, and the job is none the worse for it.
            if stream != unused and target != "/dev/null" and os.path.isdir(os.path.dirname(target)):
                shutil.copyfile(spool, target)
                os.chmod(target, 0o600)
            os.unlink(spool)
        shutil.rmtree(self.folder / "tmp" / f"pbs.{job.id}", ignore_errors=True)

    def tell(self, job: Job, words: str) -> None:
        """Write something into the job's stderr."""
        with open(job.outputs["e"][0], "a") as file:
            file.write(words)


def kill_session(session: int, number: int) -> None:
    """Signal all processes of a session."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat") as file:
                state, _, _, of = file.read().rsplit(")", 1)[1].split()[:4]
            if int(of) == session and state != "Z":
                os.kill(int(entry), number)


def now() -> float:
    return time.monotonic()
