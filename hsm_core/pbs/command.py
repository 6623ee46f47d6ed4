"""Runs PBS's commands: argument lists, each with a deadline."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from hsm_core.pbs.text import Answer, PbsError, Refusal

DEADLINE = 90.0
"""seconds; a client that finds its privileged ports used up by earlier ones waits 60 for some"""


def run(command: Sequence[str], deadline: float = DEADLINE) -> Answer:
    """Run a command of PBS; returns what it said. One that has not ended by its deadline is killed.

    It is looked for on PATH and, in a job, where its submitter had it. Raises PbsError where it is not there.
    """
    path = os.pathsep.join(filter(None, (os.environ.get(name) for name in ("PATH", "PBS_O_PATH"))))
    program = shutil.which(command[0], path=path)
    if program is None:
        raise PbsError(
            f"there is no {command[0]} on PATH; is PBS installed on this host, and its module loaded?",
            Refusal.REJECTED,
        )
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, stdin=subprocess.DEVNULL, timeout=deadline)
    except subprocess.TimeoutExpired as e:
        return Answer(command, None, _text(e.stdout), _text(e.stderr))
    return Answer(command, done.returncode, _text(done.stdout), _text(done.stderr))


def _text(said: bytes | None) -> str:
    # Job names, comments and variables may hold any bytes.
    return (said or b"").decode("utf-8", "replace")
