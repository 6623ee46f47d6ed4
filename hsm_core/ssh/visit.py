"""Coming to a host: from a connection to a line with the agent there, in one program.

A shell script of ours prepares the environment and starts the user's Python with `hsm_core.remote.boot`;
that gives way to `hsm_core.remote.visitor`, or another program of that package. Each tells in one line, behind a token
that nothing else prints, what it found.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.preamble import preamble, quoted, words
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.ssh import deploy

if TYPE_CHECKING:
    from hsm_core.ssh.connection import Connection
    from hsm_core.ssh.program import Program

PATIENCE = 120.0
"""seconds until the agent answers: slow profiles, modules and conda have their time"""
LAST_WORDS = 5.0
"""seconds until a program has ended that said it can't go on"""


@dataclass(frozen=True)
class Visit:
    """For whom our program there works, and what it is given (`hsm_core.remote.delivery`)."""

    wanted: Mapping[str, Any]
    """what it has to know"""
    delivery: bytes = b""
    """what the launcher froze, as a tar archive"""


Prepare = Callable[[Mapping[str, Any]], Visit]
"""Says what is to be done at a host, given what its boot program found: `home`, and `base`, our folder in it."""


@dataclass(frozen=True)
class Arrival:
    """A program of ours that is there, and waits to hear what it is to do."""

    program: Program
    token: str
    found: Mapping[str, Any]


def arrive(connection: Connection, config: SourceConfig, where: str, role: str) -> Arrival:
    """Have a program of ours on the host, with our code; `role` is its module in `hsm_core.remote`.

    Raises SourceError where nothing of ours can run there, with what to do; Unavailable where the connection does not
    last.
    """
    token = new_token()
    program = start(connection, config, token, role)
    try:
        with in_time(program, PATIENCE):
            return Arrival(program, token, boarded(program, token, config, where))
    except BaseException:
        program.close()
        raise


def visit(arrival: Arrival, config: SourceConfig, where: str, prepare: Prepare) -> Program:
    """Have the program that arrived work for a sweep; returns the line to it, or to the agent that it led us to.

    Raises SourceError where it can't work there, with what to do; Unavailable where the connection does not last.
    """
    program = arrival.program
    try:
        with in_time(program, PATIENCE):
            visit = prepare(arrival.found)
            head = json.dumps({**visit.wanted, "size": len(visit.delivery)}).encode() + b"\n"
            program.stdin.write(head + visit.delivery)
            answer(program, arrival.token, config, where)
    except BrokenPipeError as e:
        program.close()
        raise Unavailable(f"{where}: {e}") from e
    except BaseException:
        program.close()
        raise
    return program


def new_token() -> str:
    """What stands before the words of our programs there, and of nobody else."""
    return f"hsm-{secrets.token_hex(8)}"


class Closable(Protocol):
    def close(self) -> None: ...


@contextlib.contextmanager
def in_time(program: Closable, seconds: float) -> Iterator[None]:
    """What is waited for inside this comes to an end: the program is closed when its time is over."""
    late = threading.Timer(seconds, program.close)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def boarded(program: Program, token: str, config: SourceConfig, where: str) -> Mapping[str, Any]:
    """Hear what the boot program found there, and give it our code if it has none. Raises Unfit and Unavailable."""
    found = _sound(answer(program, token, config, where), where)
    if not found["agent"]:
        try:
            program.stdin.write(deploy.archive()[0])
        except BrokenPipeError as e:
            raise Unavailable(f"{where}: {e}") from e
    return found


def script(config: SourceConfig, token: str, digest: str, size: int, role: str) -> str:
    """A POSIX shell script that starts the boot program in the source's environment, and behind it that of `role`."""
    lines = [f'hsm_problem() {{ printf \'%s {{"problem": "%s"}}\\n\' {token} "$1"; exit 1; }}', 'cd "$HOME"']
    lines += preamble(config, str)
    lines.append(f"hsm_python={quoted(config.python or 'python3')}")
    lines.append("command -v \"$hsm_python\" >/dev/null || hsm_problem 'no python'")
    words = [token, deploy.BASE, digest, str(size), role]
    lines.append(f'exec "$hsm_python" -c {shlex.quote(deploy.boot_program())} {shlex.join(words)}')
    return "\n".join(lines) + "\n"


def start(connection: Connection, config: SourceConfig, token: str, role: str) -> Program:
    """Run the script; in a login shell of bash where there are commands of the user's.

    `source` and `module` are not of the POSIX shell, and what defines `module` is read by login shells only.
    """
    packed, digest = deploy.archive()
    text = script(config, token, digest, len(packed), role)
    if not (config.module_commands or config.setup):
        return connection.run(text)
    data = text.encode()
    take = f'eval "$(dd bs=1 count={len(data)} 2>/dev/null)"'
    program = connection.run(f"if command -v bash >/dev/null; then exec bash -l -c '{take}'; fi\n{take}\n")
    try:
        program.stdin.write(data)
    except BrokenPipeError as e:
        program.close()
        raise Unavailable(str(e)) from e
    return program


class Unfit(SourceError):
    """One of our programs there can't go on; `facts` are its words."""

    def __init__(self, words: str, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        super().__init__(words)


def answer(program: Program, token: str, config: SourceConfig, where: str) -> Mapping[str, Any]:
    """What the next of our programs there says. Raises Unfit, Unavailable where it says nothing, SourceError."""
    mark = token.encode() + b" "
    while text := program.stdout.readline(LINE_LIMIT):
        # What a login shell's profile prints need not end with its line.
        _, found, words = text.partition(mark)
        if found:
            try:
                facts = json.loads(words)
                if "problem" in facts:
                    raise Unfit(f"{where}: {_words(facts, config)}{_said(program)}", facts)
                return {**facts}
            except (ValueError, TypeError, LookupError, RecursionError) as e:
                raise SourceError(f"{where}: what our program there says can't be understood: {e}") from e
    silent = "did not answer in time" if program.stdout.closed else "ended before it said anything"
    raise Unavailable(f"{where}: our program there {silent}{_said(program)}")


def _sound(found: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What the boot program found, if that can be so. Raises SourceError."""
    folders = [found.get("base"), found.get("home")]
    if not all(isinstance(folder, str) and os.path.isabs(folder) and "\0" not in folder for folder in folders):
        raise SourceError(
            f"{where}: what our program there says can't be understood: our folder and the home are {folders!r:.200}"
        )
    names = [found.get("python"), found.get("executable")]
    if not all(isinstance(name, str) for name in names):
        raise SourceError(
            f"{where}: what our program there says can't be understood: its interpreter is {names!r:.200}"
        )
    return {**found, "agent": found.get("agent") is True}


def _said(program: Program) -> str:
    """What a program that could not go on wrote to its standard error; that comes on its own way, maybe late."""
    with contextlib.suppress(Unavailable):
        program.wait(LAST_WORDS)
    words = program.errors().strip()
    return f"\nIt said:\n{words[-2000:]}" if words else ""


def _words(facts: Mapping[str, Any], config: SourceConfig) -> str:
    problem = str(facts["problem"])
    known = {
        "no python": f"there is no program {config.python or 'python3'}: name the app's interpreter there with "
        "`python`, or its environment with `conda_env`",
        "old python": f"{facts.get('executable')} is Python {facts.get('python')}; hsm needs 3.10 or newer "
        "there: name another one with `python`, or its environment with `conda_env`",
        "not writable": f"the folder {facts.get('base')} can't be written to: {facts.get('reason')}",
    }
    return known.get(problem) or words(problem, config) or f"no agent can run there: {facts.get('reason')}"
