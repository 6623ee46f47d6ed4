"""Programs that are run beside the tasks: for the launcher's `run_command`, and to learn how a host or its jobs are."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from hsm_core.remote import process

OUTPUT_LIMIT = 1 << 20
"""bytes of a command's output that are sent to the launcher"""


_STUBBORN = 1.0
"""seconds that a killed program is waited for: one whose driver or disk hangs does not end even so"""


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it printed."""

    code: int | None
    """its exit code, negative for a signal; None where it took longer than it may and was killed"""
    out: str
    err: str


def run(argv: Sequence[str], timeout: float, environ: Mapping[str, str] | None = None) -> Ended:
    """Run a program for at most `timeout` seconds, out of reach of a Ctrl-C that is for us.

    One that takes longer is killed, with what it started. Raises OSError where it can't be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # a pipe may stay open beyond its end
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, start_new_session=True
        )
        code = None
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send(child.pid, signal.SIGKILL, group=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_STUBBORN)
        return Ended(code, _text(out), _text(err))


@dataclass(frozen=True)
class _Command:
    child: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]
    deadline: float
    tell: Callable[..., None]


class Commands:
    """The programs that run."""

    def __init__(self) -> None:
        self._running: list[_Command] = []
        self._killed: list[subprocess.Popen[bytes]] = []
        """those that had their time: one whose driver hangs does not end even so, and nobody waits for it"""

    def start(self, argv: Sequence[str], timeout: float, tell: Callable[..., None]) -> None:
        """Start a program, which has `timeout` seconds. `tell` hears how it ended.

        That is `exit_code`, `stdout` and `stderr`; or `error`: why it was not started, or had to be killed.
        """
        try:
            # The files live as long as the command does: `_end` closes them.
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as e:
            tell(error=f"{argv[0]}: {e.strerror}")
            return
        self._running.append(_Command(child, out, err, time.monotonic() + timeout, tell))

    def stuck(self, program: str) -> bool:
        """Whether this program was killed and has not ended yet."""
        return any(isinstance(child.args, list) and child.args[0] == program for child in self._killed)

    def deadlines(self) -> Iterator[float]:
        """When each of them has had its time, on the monotonic clock."""
        return (command.deadline for command in self._running)

    def expire(self) -> None:
        """Kill those that have had their time, and tell so."""
        for command in [*self._running]:
            if time.monotonic() >= command.deadline:
                self._end(command, error="it took longer than its time limit")
                self._killed.append(command.child)

    def reap(self) -> None:
        """Tell of those that have ended."""
        self._killed = [child for child in self._killed if child.poll() is None]
        for command in [*self._running]:
            status = command.child.poll()
            if status is not None:
                said = {"stdout": _text(command.out, OUTPUT_LIMIT), "stderr": _text(command.err, OUTPUT_LIMIT)}
                self._end(command, exit_code=status, **said)

    def _end(self, command: _Command, **how: Any) -> None:
        self._running.remove(command)
        process.send(command.child.pid, signal.SIGKILL, group=True)
        command.out.close()
        command.err.close()
        command.tell(**how)


def _text(file: IO[bytes], limit: int = -1) -> str:
    """What a command printed; its first bytes, where there is a limit."""
    file.seek(0)
    return file.read(limit).decode(errors="replace")
