"""Programs that an agent runs for the launcher's `run_command`, beside the tasks."""

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


class Commands:
    """The programs that run; how each ended goes to `say`, as an event of the kind `command`."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._running: dict[int, _Command] = {}

    def start(self, number: int, argv: Sequence[str], timeout: float) -> None:
        """Start a program, which has `timeout` seconds."""
        try:
            # The files live as long as the command does: `_tell` closes them.
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as e:
            self._say("command", id=number, error=f"{argv[0]}: {e.strerror}")
            return
        self._running[number] = _Command(child, out, err, time.monotonic() + timeout)

    def deadlines(self) -> Iterator[float]:
        """When each of them has had its time, on the monotonic clock."""
        return (command.deadline for command in self._running.values())

    def expire(self) -> None:
        """Kill those that have had their time."""
        for command in self._running.values():
            if time.monotonic() >= command.deadline:
                process.send(command.child.pid, signal.SIGKILL, group=True)

    def reap(self) -> None:
        """Tell of those that have ended."""
        for number, command in list(self._running.items()):
            if command.child.poll() is not None:
                del self._running[number]
                self._tell(number, command)

    def _tell(self, number: int, command: _Command) -> None:
        process.send(command.child.pid, signal.SIGKILL, group=True)
        status = command.child.returncode
        if time.monotonic() >= command.deadline and status == -signal.SIGKILL:
            self._say("command", id=number, error="it took longer than its time limit")
        else:
            told: dict[str, Any] = {"stdout": _text(command.out), "stderr": _text(command.err)}
            self._say("command", id=number, exit_code=status, **told)
        command.out.close()
        command.err.close()


def _text(file: IO[bytes]) -> str:
    """What a command printed, its first `OUTPUT_LIMIT` bytes."""
    file.seek(0)
    return file.read(OUTPUT_LIMIT).decode(errors="replace")
