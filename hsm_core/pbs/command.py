"""Runs PBS's commands: argument lists, each with a deadline; and asks qstat in words that it understands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence

from hsm_core.pbs import status
from hsm_core.pbs.status import Dialect
from hsm_core.pbs.text import Answer, PbsError, Refusal
from hsm_core.remote import commands

DEADLINE = 90.0
"""seconds; a client that finds its privileged ports used up by earlier ones waits 60 for some"""


def search_path(environ: Mapping[str, str]) -> str:
    """Where PBS's commands are looked for: on PATH and, in a job, where its submitter had them."""
    return os.pathsep.join(filter(None, (environ.get(name) for name in ("PATH", "PBS_O_PATH"))))


def run(command: Sequence[str], deadline: float = DEADLINE) -> Answer:
    """Run a command of PBS; returns what it said. One that has not ended by its deadline is killed.

    It is looked for as `search_path` says. Raises PbsError where it is not there.
    """
    program = shutil.which(command[0], path=search_path(os.environ))
    if program is None:
        raise PbsError(
            f"there is no {command[0]} on PATH; is PBS installed on this host, and its module loaded?",
            Refusal.REJECTED,
        )
    done = commands.run([program, *command[1:]], deadline)
    return Answer(command, done.code, done.out, done.err)


def ask(
    elements: Collection[str], dialect: Dialect, call: Callable[[Sequence[str]], Answer] | None = None
) -> tuple[Answer, Dialect]:
    """Ask qstat about jobs, in ever simpler ways until one is understood; returns its answer, and which way it was.

    `call` runs a command; None: `run` does. Raises PbsError where there is no qstat, and what `call` raises.
    """
    while True:
        answer = (call or run)(status.command(elements, dialect))
        simpler = status.simpler(answer, dialect)
        if simpler is None:
            return answer, dialect
        dialect = simpler
