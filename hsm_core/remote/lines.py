"""The agent's end of the line to its launcher.

`Parent`: the pipes of a launcher that started the agent, which ends with it. `Door`: a socket to
which launchers come and go; the agent stays.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import secrets
import select
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from hsm_core.remote import process

SOCKET = "socket"
"""name of a door in its folder"""
LAST_WORDS = 5.0
"""seconds that an agent which ends waits for its last words to be taken"""
LINE_LIMIT = 16 << 20
"""bytes of one event; that of a program's output, the longest, has less"""
_CHUNK = 1 << 16

Request = Mapping[str, Any]


class Line(Protocol):
    def inputs(self) -> list[int]:
        """The descriptors to be read when they are ready."""

    def outputs(self) -> list[int]:
        """The descriptors that something is to be written to."""

    def exchange(self, ready: Collection[int]) -> Iterator[Request]:
        """Read and write what these descriptors are ready for; the requests that came."""

    def say(self, event: bytes) -> None:
        """Tell the launcher, now or when there is one again."""

    def deserted_at(self, busy: bool) -> float | None:
        """The monotonic time from which an agent is of no use that is `busy` or not; None while a launcher may come."""

    def close(self) -> None:
        """Have what was said taken, within `LAST_WORDS`, and hang up."""


class Parent:
    """Standard input and output; the end of the input is the end of the launcher."""

    def __init__(self) -> None:
        os.set_blocking(0, False)
        self._buffer = b""
        self._deserted: float | None = None

    def inputs(self) -> list[int]:
        return [0] if self._deserted is None else []

    def outputs(self) -> list[int]:
        return []

    def exchange(self, ready: Collection[int]) -> Iterator[Request]:
        if 0 not in ready:
            return
        chunk = process.drain(0)
        if not chunk:
            self._deserted = time.monotonic()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def say(self, event: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # noticed by the end of the input
            process.write_all(1, event)

    def deserted_at(self, busy: bool) -> float | None:
        return self._deserted

    def close(self) -> None:
        """All was written when it was said."""


class _Guest:
    """A connection to the door; the launcher's, once it has said so."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.read = b""
        self.position: int | None = None
        """how far it has been told what was said, in bytes since the agent's start; None: it does not listen"""


class Door:
    """A unix socket in `folder`; what is said is kept until a launcher has seen it.

    A connection's first line is `{"do": "listen", "epoch": .., "agent": .., "from": ..}`: whose launcher it is,
    and what it has seen of which agent. It is answered by `hello`, and then hears everything from
    there on. Requests are numbered by `n`, from 1 in each epoch: one that comes again is ignored,
    and `hello` says which was the last. `{"do": "seen", "offset": ..}` lets go of what was said,
    and is answered by `heard`, with the number of the last request.

    `patience`: seconds with neither a launcher nor work after which the agent is deserted.
    """

    def __init__(self, folder: str, patience: float) -> None:
        self.agent = secrets.token_hex(8)
        self._patience = patience
        self._said: collections.deque[bytes] = collections.deque()
        self._from = self._to = 0
        """the bytes, counted from the start, that `_said` holds"""
        self._epoch = self._heard = 0
        self._guests: dict[int, _Guest] = {}
        self._launcher: _Guest | None = None
        self._alone_since = time.monotonic()
        os.chdir(folder)  # a socket's path may have 107 bytes only, see unix(7)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(SOCKET)
        self._listener.listen()
        self._listener.setblocking(False)

    def inputs(self) -> list[int]:
        return [self._listener.fileno(), *self._guests]

    def outputs(self) -> list[int]:
        launcher = self._launcher
        behind = launcher is not None and launcher.position is not None and launcher.position < self._to
        return [launcher.connection.fileno()] if launcher is not None and behind else []

    def exchange(self, ready: Collection[int]) -> Iterator[Request]:
        if self._listener.fileno() in ready:
            connection, _ = self._listener.accept()
            self._guests[connection.fileno()] = _Guest(connection)
        for number in [*self._guests]:
            guest = self._guests[number]
            if number in ready:
                yield from self._hear(guest)
            if guest is self._launcher:
                self._tell(guest)

    def say(self, event: bytes) -> None:
        self._said.append(event)
        self._to += len(event)
        if self._launcher is not None:
            self._tell(self._launcher)

    def deserted_at(self, busy: bool) -> float | None:
        if busy or self._launcher is not None:
            self._alone_since = time.monotonic()
            return None
        return self._alone_since + self._patience

    def close(self) -> None:
        deadline = time.monotonic() + LAST_WORDS
        while (behind := self.outputs()) and time.monotonic() < deadline:
            _, ready, _ = select.select([], behind, [], 0.1)
            if ready and self._launcher is not None:
                self._tell(self._launcher)
        self._listener.close()
        for guest in [*self._guests.values()]:
            self._dismiss(guest)
        os.unlink(SOCKET)

    def _hear(self, guest: _Guest) -> Iterator[Request]:
        try:
            chunk = guest.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._dismiss(guest)
            return
        *lines, guest.read = (guest.read + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "listen":
                self._let_listen(guest, request)
            elif guest is not self._launcher:
                return  # another took its place
            elif request["do"] == "seen":
                self._forget(request["offset"])
                self.say(json.dumps({"ev": "heard", "n": self._heard}).encode() + b"\n")
            elif request["n"] > self._heard:
                self._heard = request["n"]
                yield request

    def _let_listen(self, guest: _Guest, request: Request) -> None:
        if request["epoch"] < self._epoch:
            self._greet(guest, "superseded", epoch=self._epoch)
            self._dismiss(guest)
            return
        if self._launcher is not None and self._launcher is not guest:
            self._dismiss(self._launcher)  # a connection that is dead and does not know yet, or an earlier launcher's
        if request["epoch"] > self._epoch:
            self._epoch, self._heard = request["epoch"], 0
        self._launcher = guest
        same = request["agent"] == self.agent
        start = min(max(request["from"], self._from), self._to) if same else self._to
        self._greet(guest, "hello", agent=self.agent, heard=self._heard, offset=start)
        guest.position = start

    def _greet(self, guest: _Guest, kind: str, **body: Any) -> None:
        """Say something to one connection alone, as its first words: there is room for them."""
        with contextlib.suppress(OSError):
            guest.connection.send(json.dumps({"ev": kind, **body}).encode() + b"\n")

    def _tell(self, guest: _Guest) -> None:
        """Send what the connection has room for."""
        at = self._from
        for event in self._said:
            assert guest.position is not None
            at += len(event)
            if at <= guest.position:
                continue
            try:
                guest.position += guest.connection.send(memoryview(event)[guest.position - at :])
            except BlockingIOError:
                return
            except OSError:
                self._dismiss(guest)
                return
            if guest.position < at:
                return

    def _forget(self, offset: int) -> None:
        while self._said and self._from + len(self._said[0]) <= offset:
            self._from += len(self._said.popleft())

    def _dismiss(self, guest: _Guest) -> None:
        self._guests.pop(guest.connection.fileno(), None)
        guest.connection.close()
        if guest is self._launcher:
            self._launcher = None
