"""One run of rsync whose other end is started over a connection that is there already.

rsync starts `relay` as its remote shell. That sends rsync's own pipes here, so its bytes go through two threads of this
process into the channel and back, in large pieces, and through nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from hsm_core.exceptions import Unavailable
from hsm_core.transfer import relay
from hsm_core.transfer.shell import Program, Shell

HOST = "hsm"
"""what stands for the host in rsync's arguments"""
_PIECE = 1 << 18
_KEPT = 1 << 16
"""bytes of rsync's messages that are kept, the last ones"""
_END = 10.0
"""seconds for last steps: an exit status that is on its way, an rsync that was told to end"""


_LOST = (OSError, EOFError, ValueError, Unavailable)
"""what reading and writing raise where one of the two ends is gone; ValueError: it was closed here"""


@dataclass(frozen=True)
class Ended:
    """How a run of rsync ended."""

    code: int
    """its exit status here, negative for a signal"""
    there: int | None
    """exit status of what ran over there, None where nobody heard of it"""
    words: str
    """the end of what both sides said"""
    received: int
    """bytes that came over the connection"""


def run(connection: Shell, lead: str, arguments: Sequence[str], names: bytes) -> Ended:
    """Run rsync with these arguments, which name the other end as `HOST`, and `names` as its input.

    `lead` is a shell script that leads to where its other end has to start. Raises Unavailable where that can't be
    started. Afterwards nothing of it runs here.
    """
    ours, theirs = socket.socketpair()
    program: Program | None = None
    flow: _Flow | None = None
    with ours, _started(arguments, names, theirs) as process:
        assert process.stderr is not None
        said = _Tail(process.stderr)
        try:
            # It starts while rsync and the relay do, before anybody knows the command.
            program = connection.run(f'{lead}\nLC_ALL=C\nexport LC_ALL\nIFS= read -r command && eval "$command"\n')
            command, pipes = _handed_over(ours)
            if pipes:
                flow = _Flow(program, pipes, f"exec {shlex.join(_checked(command))}\n".encode())
            code = process.wait()
            there = flow.status() if flow is not None else None
        finally:
            if program is not None:
                program.close()
            _end(process)
            received = flow.join() if flow is not None else 0
            words = said.text()
    return Ended(code, there, words + program.errors(), received)


@contextlib.contextmanager
def _started(arguments: Sequence[str], names: bytes, channel: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """rsync, which has the channel for its remote shell; nobody else has it."""
    remote_shell = (sys.executable, "-I", "-S", relay.__file__, str(channel.fileno()))
    with tempfile.TemporaryFile() as listed:
        listed.write(names)
        listed.seek(0)
        with channel:
            process = subprocess.Popen(
                ["rsync", "-e", " ".join(_quoted(word) for word in remote_shell), *arguments],
                stdin=listed,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[channel.fileno()],
                env=_environment(),
                # A Ctrl-C of the terminal is for the launcher, which ends its transfers itself.
                start_new_session=True,
            )
    with process:
        yield process


def _quoted(word: str) -> str:
    """A word for rsync's `-e`, which is split at blanks; its quotes are described at --rsh in rsync(1)."""
    return "'" + word.replace("'", "''") + "'"


def _environment() -> dict[str, str]:
    # Neither RSYNC_ variables nor ~/.popt may change what our arguments mean.
    return {"LC_ALL": "C", **{name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}}


def _handed_over(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The command and the pipes that the relay sends; none where rsync ended before it started one."""
    command, pipes, _, _ = socket.recv_fds(channel, 1 << 16, 2)
    while more := channel.recv(1 << 16):
        command += more
    return command, pipes


def _checked(command: bytes) -> Sequence[str]:
    words = os.fsdecode(command).split("\0")
    assert words[:2] == ["rsync", "--server"], f"rsync wants to run {words}"
    return words


def _end(process: subprocess.Popen[bytes]) -> None:
    """End rsync with all that it started. It keeps what it has of a file, for the next time."""
    if process.poll() is not None:
        return
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END)
            return


class _Flow:
    """Carries bytes between rsync's pipes and a program over there, each way in a thread, until one of them ends.

    Each thread closes the pipe it has, so that rsync hears of an end.
    """

    def __init__(self, program: Program, pipes: Sequence[int], first: bytes) -> None:
        self._program = program
        self._received = 0
        self._ended_there = False
        source, sink = pipes
        for pipe in pipes:
            os.set_blocking(pipe, True)  # rsync made them non-blocking for its remote shell
        self._threads = [
            threading.Thread(target=self._send, args=(source, first), name="hsm-rsync-send", daemon=True),
            threading.Thread(target=self._receive, args=(sink,), name="hsm-rsync-receive", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def status(self) -> int | None:
        """The program's exit status, where its end was the reason that rsync ended too; else None."""
        with contextlib.suppress(Unavailable):
            return self._program.wait(_END) if self._ended_there else None
        return None

    def join(self) -> int:
        """Wait for the end, after rsync has ended and the program is closed; returns how many bytes came."""
        for thread in self._threads:
            thread.join()
        return self._received

    def _send(self, source: int, first: bytes) -> None:
        """Send `first`, then what rsync writes."""
        with open(source, "rb", buffering=0) as pipe, contextlib.suppress(*_LOST):
            self._program.stdin.write(first)
            while piece := pipe.read(_PIECE):
                self._program.stdin.write(piece)
            self._program.stdin.close()

    def _receive(self, sink: int) -> None:
        with open(sink, "wb", buffering=0) as pipe, contextlib.suppress(*_LOST):
            while piece := self._program.stdout.read(_PIECE):
                self._received += len(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[pipe.write(rest) :]
            self._ended_there = True


class _Tail:
    """Reads a pipe to its end, in a thread of its own, and keeps the last of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, name="hsm-rsync-words", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What was kept, once the pipe has ended."""
        self._thread.join()
        return self._kept.decode("utf-8", "backslashreplace")

    def _read(self) -> None:
        while piece := os.read(self._pipe.fileno(), _PIECE):
            self._kept += piece
            del self._kept[:-_KEPT]
