"""Programs that an agent runs beside the tasks: for the launcher's `run_command`, and to learn how the host is."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from hsm_core.remote import process

OUTPUT_LIMIT = 1 << 20
"""bytes of a command's output that are sent to the launcher"""


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
                self._end(command, exit_code=status, stdout=_text(command.out), stderr=_text(command.err))

    def _end(self, command: _Command, **how: Any) -> None:
        self._running.remove(command)
        process.send(command.child.pid, signal.SIGKILL, group=True)
        command.out.close()
        command.err.close()
        command.tell(**how)


def _text(file: IO[bytes]) -> str:
    """What a command printed, its first `OUTPUT_LIMIT` bytes."""
    file.seek(0)
    return file.read(OUTPUT_LIMIT).decode(errors="replace")
