"""A gate: a TCP port that leads whoever knows a secret to the agent's door, which is a socket of its own machine.

Both sides show that they know the secret without saying it (a challenge and an HMAC of it, as the connections of
`multiprocessing` do): first the one who comes, so that nobody else learns anything, then the gate, so that a stranger
who has its port later is told nothing. What follows goes through as it is, both ways. When the agent has hung up, `BYE`
is the last line: any other end is that of a connection.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import threading
import time
from collections.abc import Sequence

BYE = b"\0bye\n"
"""the gate's last line; an agent says no such thing"""
HANDSHAKE = 10.0
"""seconds that either side has to show what it knows"""
STRANGERS = 16
"""connections that may be in their handshake at a time"""
_LINE = 256
"""bytes of a line of the handshake"""
_CHUNK = 1 << 16


class Stranger(Exception):
    """The other side does not know the secret."""


class Gate:
    """Open from its beginning to `close`; `door` is the path of the agent's socket."""

    def __init__(self, secret: str, door: str) -> None:
        self._secret = secret
        self._door = door
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._listener = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        self.port: int = self._listener.getsockname()[1]
        self._room = threading.BoundedSemaphore(STRANGERS)
        self._passages: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="hsm-gate", daemon=True)
        self._accepting.start()

    def close(self, timeout: float) -> None:
        """Let nobody in any more, and wait for those who are inside: they go when the agent hangs up."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept(2)
        self._listener.close()
        self._accepting.join(timeout)
        for passage in self._passages:
            passage.join(timeout)

    def _accept(self) -> None:
        while True:
            self._room.acquire()
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return  # closed
            passage = threading.Thread(target=self._let_in, args=(guest,), name="hsm-gate-guest", daemon=True)
            self._passages = [thread for thread in self._passages if thread.is_alive()]
            passage.start()
            self._passages.append(passage)

    def _let_in(self, guest: socket.socket) -> None:
        with guest, socket.socket(socket.AF_UNIX) as door:
            try:
                try:
                    admit(guest, self._secret)
                finally:
                    self._room.release()
                door.connect(self._door)
            except (Stranger, OSError):
                return
            requests = threading.Thread(
                target=_pass_requests, args=(guest, door), name="hsm-gate-requests", daemon=True
            )
            requests.start()
            if _pump(door, guest):
                with contextlib.suppress(OSError):
                    guest.sendall(BYE)
            for end in (guest, door):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            requests.join()


def admit(guest: socket.socket, secret: str) -> None:
    """The gate's side of the handshake. Raises Stranger and OSError."""
    deadline = _prepare(guest)
    ours = secrets.token_hex(16)
    guest.sendall(f"{ours}\n".encode())
    theirs, answer = _words(guest, 2, deadline)
    _compare(answer, _answer(secret, "launcher", ours, theirs))
    guest.sendall(f"{_answer(secret, 'gate', ours, theirs)}\n".encode())
    guest.settimeout(None)


def knock(gate: socket.socket, secret: str) -> None:
    """The side of the one who comes. Raises Stranger and OSError."""
    deadline = _prepare(gate)
    ours = secrets.token_hex(16)
    (theirs,) = _words(gate, 1, deadline)
    gate.sendall(f"{ours} {_answer(secret, 'launcher', theirs, ours)}\n".encode())
    (answer,) = _words(gate, 1, deadline)
    _compare(answer, _answer(secret, "gate", theirs, ours))
    gate.settimeout(None)


def own_names(home: str) -> Sequence[str]:
    """By what names this machine may be reached from `home`: its own, and the address it would use to talk to that."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(home, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.connect(address)  # nothing is sent
                found.append(probe.getsockname()[0])
    return list(dict.fromkeys(found))


def _prepare(end: socket.socket) -> float:
    """Ready a new connection; returns until when its handshake has to be done."""
    end.settimeout(HANDSHAKE)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return time.monotonic() + HANDSHAKE


def _answer(secret: str, side: str, gate_says: str, guest_says: str) -> str:
    return hmac.new(secret.encode(), f"{side} {gate_says} {guest_says}".encode(), "sha256").hexdigest()


def _compare(answer: str, right: str) -> None:
    if not hmac.compare_digest(answer.encode(), right.encode()):
        raise Stranger("the other side does not know the secret")


def _words(end: socket.socket, count: int, deadline: float) -> Sequence[str]:
    """The words of the next line, read byte by byte: what follows is for others.

    Raises Stranger where they are not so many, OSError where they don't come in time.
    """
    line = b""
    while not line.endswith(b"\n"):
        end.settimeout(max(0.01, deadline - time.monotonic()))
        byte = end.recv(1)
        if not byte or len(line) == _LINE:
            raise Stranger("the other side does not speak as a gate of hsm")
        line += byte
    words = line.decode("ascii", "replace").split()
    if len(words) != count:
        raise Stranger("the other side does not speak as a gate of hsm")
    return words


def _pump(source: socket.socket, target: socket.socket) -> bool:
    """Pass on what comes until `source` has no more, or `target` takes no more; whether it was the former."""
    try:
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    except OSError:
        return False
    return True


def _pass_requests(guest: socket.socket, door: socket.socket) -> None:
    _pump(guest, door)
    with contextlib.suppress(OSError):
        door.shutdown(socket.SHUT_WR)  # the agent is to know that its guest is gone
