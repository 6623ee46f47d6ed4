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
from hsm_core.sources.ssh import relay
from hsm_core.sources.ssh.shell import Program, Shell

HOST = "hsm"
"""what stands for the host in rsync's arguments"""
_PIECE = 1 << 18
_KEPT = 1 << 16
"""bytes of rsync's messages that are kept, the last ones"""
_END = 10.0
"""seconds for last steps: an exit status that is on its way, an rsync that was told to end"""


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
            there = None
            if pipes:
                flow = _Flow(*pipes)
                there = flow.carry(program, f"exec {shlex.join(_checked(command))}\n".encode())
            code = process.wait()
        finally:
            if program is not None:
                program.close()
            _end(process)
            if flow is not None:
                flow.close()
            words = said.text()
    return Ended(code, there, words + program.errors(), flow.received if flow else 0)


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
    """Carries bytes between rsync's pipes and a program over there."""

    def __init__(self, source: int, sink: int) -> None:
        self.received = 0
        self._source, self._sink = source, sink
        self._open = {source, sink}
        self._sender: threading.Thread | None = None
        for pipe in (source, sink):
            os.set_blocking(pipe, True)  # rsync made them non-blocking for its remote shell

    def carry(self, program: Program, first: bytes) -> int | None:
        """Go on until the program's output ends; its exit status, None where the connection is lost or rsync ended.

        `first` goes before all that rsync sends.
        """
        self._sender = threading.Thread(target=self._send, args=(program, first), name="hsm-rsync", daemon=True)
        self._sender.start()
        try:
            while piece := program.stdout.read(_PIECE):
                self.received += len(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(self._sink, rest) :]
            self._shut(self._sink)
            return program.wait(_END)
        except (OSError, Unavailable):
            return None
        finally:
            self._shut(self._sink)

    def close(self) -> None:
        """Give everything back. rsync and the program must have ended, or be closed."""
        if self._sender is not None:
            self._sender.join()
        for pipe in (self._source, self._sink):
            self._shut(pipe)

    def _send(self, program: Program, first: bytes) -> None:
        with contextlib.suppress(OSError, Unavailable):  # the reader hears of it too
            program.stdin.write(first)
            while piece := os.read(self._source, _PIECE):
                program.stdin.write(piece)
            program.stdin.close()

    def _shut(self, pipe: int) -> None:
        if pipe in self._open:
            self._open.discard(pipe)
            os.close(pipe)


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
