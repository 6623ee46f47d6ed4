"""The line to an agent with a door: it is made again when the connection is lost, and nothing that was said is.

Requests are numbered and kept until the agent has confirmed them, events are read on from the last
byte that came whole (`hsm_core.remote.lines.Door` is the other end).
"""

from __future__ import annotations

import collections
import itertools
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.sources.line import Line
from hsm_core.ssh.visit import in_time

log = logging.getLogger(__name__)

SEEN_EVERY = 64 << 10
"""bytes of events after which the agent is told that they arrived"""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""seconds before the first try to connect again; each next pause is twice as long, up to the longest"""
GREETING = 30.0
"""seconds an agent has to answer"""


class Requests(Protocol):
    """What goes to an agent."""

    def write(self, data: bytes, /) -> object:
        """Send all of it. Raises Unavailable or OSError where nobody takes it."""


class Events(Protocol):
    """What an agent says."""

    def readline(self, limit: int, /) -> bytes:
        """One line with its end, or `limit` bytes of it, or what there is at the end."""


class Program(Protocol):
    """What leads to an agent: the end of a connection, where a program passes on all that is said."""

    @property
    def stdin(self) -> Requests: ...

    @property
    def stdout(self) -> Events: ...

    def errors(self) -> str:
        """What there is to be said of its end."""

    def wait(self, timeout: float) -> int:
        """How it ended: 0 where the agent has hung up. Raises Unavailable where the connection was lost."""

    def close(self) -> None:
        """Be done with it; wakes who reads. Idempotent."""


class RemoteLine(Line):
    """`reach` connects to the agent, or to a new one in its place. Of its errors only Unavailable is worth another try.

    `down` hears why the agent can't be reached, `up` that it can again: only for the same agent. Another one
    is the end of this line.
    """

    def __init__(
        self,
        reach: Callable[[], Program],
        epoch: int,
        down: Callable[[str], None],
        up: Callable[[], None],
    ) -> None:
        self._reach = reach
        self._epoch = epoch
        self._down = down
        self._up = up
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._requests: collections.deque[tuple[int, bytes]] = collections.deque()
        """what the agent has not confirmed, by number"""
        self._program: Program | None = None
        self._written = 0
        """the number of the last request that went out through this program"""
        self._agent = ""
        self._offset = self._seen = 0
        """bytes of events that came whole, and of those that the agent knows of"""
        self._hung_up = threading.Event()
        self._over = threading.Event()
        self.fault: str | None = None
        """why the agent will not be reached again, where that is so"""

    @property
    def hung_up(self) -> bool:
        """Whether nothing more will be said or heard."""
        return self._hung_up.is_set() or self._over.is_set()

    def open(self) -> None:
        """Connect for the first time. Raises SourceError."""
        self._greet(self._reach())
        threading.Thread(target=self._write, name="hsm-ssh-requests", daemon=True).start()

    def send(self, request: Mapping[str, Any]) -> None:
        with self._changed:
            number = next(self._numbers)
            self._requests.append((number, json.dumps({**request, "n": number}).encode() + b"\n"))
            self._changed.notify_all()

    def hear(self) -> bytes:
        while True:
            text, why = self._read()
            if text and text.endswith(b"\n"):
                self._count(len(text))
                if not self._is_ours(text):
                    return text
            elif len(text) == LINE_LIMIT:
                return text
            elif why is None or not self._come_back(why):
                self._over.set()
                return b""

    def hang_up(self, timeout: float) -> None:
        self._over.wait(timeout)
        self.part()

    def part(self) -> None:
        """Disconnect, and leave the agent as it is; idempotent."""
        self._hung_up.set()
        with self._changed:
            program = self._program
            self._changed.notify_all()
        if program is not None:
            program.close()

    def close(self) -> None:
        self._over.set()
        self.part()

    def _read(self) -> tuple[bytes, str | None]:
        """A line, or nothing with the reason; without one the agent has hung up."""
        assert self._program is not None
        try:
            text = self._program.stdout.readline(LINE_LIMIT)
            if text.endswith(b"\n") or len(text) == LINE_LIMIT:
                return text, None
            status = self._program.wait(GREETING)
        except Unavailable as e:
            return b"", str(e)
        return b"", None if status == 0 else f"the program there ended with {status}"

    def _count(self, size: int) -> None:
        with self._changed:
            self._offset += size
            if self._offset - self._seen >= SEEN_EVERY:
                self._changed.notify_all()

    def _is_ours(self, text: bytes) -> bool:
        """Whether this is the agent's word to this line, that requests arrived."""
        if not text.startswith(b'{"ev": "heard"'):
            return False
        number = json.loads(text)["n"]
        with self._changed:
            self._confirm(number)
        return True

    def _confirm(self, number: int) -> None:
        while self._requests and self._requests[0][0] <= number:
            self._requests.popleft()

    def _come_back(self, why: str) -> bool:
        """Connect again, however long it takes; False where that is no use, or the line is hung up."""
        if self._hung_up.is_set():
            return False
        with self._changed:
            self._program = None
        self._down(why)
        pause = FIRST_PAUSE
        while not self._hung_up.wait(pause):
            try:
                same = self._greet(self._reach())
            except Unavailable as e:
                log.debug("still out of reach: %s", e)
                pause = min(2 * pause, LONGEST_PAUSE)
            except SourceError as e:
                self.fault = str(e)
                return False
            else:
                if same:
                    self._up()
                return same
        return False

    def _greet(self, program: Program) -> bool:
        """Say who we are; returns whether it is the agent that we know, or the first one. Raises SourceError."""
        listen = {"do": "listen", "epoch": self._epoch, "agent": self._agent, "from": self._offset}
        try:
            with in_time(program, GREETING):
                program.stdin.write(json.dumps(listen).encode() + b"\n")
                text = program.stdout.readline(LINE_LIMIT)
        except BrokenPipeError as e:
            program.close()
            raise Unavailable(str(e)) from e
        try:
            hello = json.loads(text)
            if hello["ev"] == "superseded":
                program.close()
                raise SourceError(f"its agent works for a later launcher of this sweep, number {hello['epoch']}")
            agent, heard, offset = str(hello["agent"]), int(hello["heard"]), int(hello["offset"])
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as e:
            program.close()
            raise Unavailable(f"its agent did not answer ({text[:200]!r}; {program.errors()[-500:]})") from e
        with self._changed:
            if self._hung_up.is_set() or self._agent not in ("", agent):
                program.close()
                return False
            self._agent, self._program, self._offset, self._seen = agent, program, offset, offset
            self._confirm(heard)
            self._written = heard
            self._changed.notify_all()
        return True

    def _write(self) -> None:
        """Write what there is to be written, until the line is hung up."""
        while (work := self._next()) is not None:
            program, data = work
            try:
                program.stdin.write(data)
            except (Unavailable, OSError) as e:
                log.debug("requests are to be sent again: %s", e)
                program.close()  # which is noticed by who hears

    def _next(self) -> tuple[Program, bytes] | None:
        """Wait for something to write, and where to; None once the line is hung up."""
        with self._changed:
            while not self._hung_up.is_set():
                late = self._offset - self._seen >= SEEN_EVERY
                todo = [line for number, line in self._requests if number > self._written]
                if self._program is not None and (todo or late):
                    self._written += len(todo)
                    if late:
                        self._seen = self._offset
                        todo.append(json.dumps({"do": "seen", "offset": self._seen}).encode() + b"\n")
                    return self._program, b"".join(todo)
                self._changed.wait()
        return None
