"""The gate in front of an agent: who knows the secret comes through, nobody else learns anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.exceptions import Unavailable
from hsm_core.remote import gate
from hsm_core.remote.gate import Gate
from hsm_core.sources.hpc import pilot_agent
from hsm_core.sources.hpc.pilot_jobs import Address

SECRET = "0123456789abcdef"


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        listener.listen()
        listener.settimeout(10)
        yield listener


@pytest.fixture
def open_gate(door: socket.socket) -> Iterator[Gate]:
    made = Gate(SECRET, "socket")
    yield made
    made.close(5.0)


def come(open_gate: Gate, secret: str = SECRET) -> pilot_agent.Passage:
    return pilot_agent.enter(Address(["127.0.0.1"], open_gate.port, secret))


def test_who_knows_the_secret_talks_to_the_agent(open_gate: Gate, door: socket.socket) -> None:
    passage = come(open_gate)
    agent, _ = door.accept()
    with agent:
        passage.write(b"a request\n" * 50_000)
        received = b""
        while len(received) < 500_000:
            received += agent.recv(1 << 16)
        assert received == b"a request\n" * 50_000
        agent.sendall(b"\x00\xff an event\nanother\n")
        assert passage.readline(100) == b"\x00\xff an event\n"
        assert passage.readline(4) == b"anot"
        assert passage.readline(100) == b"her\n"
    assert passage.readline(100) == b""
    assert passage.wait(1.0) == 0  # the agent has hung up
    passage.close()


def test_an_agent_knows_that_its_guest_is_gone(open_gate: Gate, door: socket.socket) -> None:
    passage = come(open_gate)
    agent, _ = door.accept()
    with agent:
        passage.close()
        assert agent.recv(1) == b""


def test_a_connection_that_breaks_is_no_farewell(door: socket.socket) -> None:
    made = Gate(SECRET, "socket")
    passage = come(made)
    agent, _ = door.accept()
    with agent:
        passage._connection.shutdown(socket.SHUT_RDWR)
        assert passage.readline(100) == b""
        with pytest.raises(Unavailable, match="the connection was lost"):
            passage.wait(1.0)
    passage.close()
    made.close(5.0)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * 100_000,
        b"\xff\xfe \x00\n",
        b"00000000000000000000000000000000 " + b"0" * 64 + b"\n",
    ],
)
def test_a_stranger_gets_nothing_but_a_challenge(open_gate: Gate, door: socket.socket, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", open_gate.port), 10) as stranger:
        try:
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            heard = b""
            while piece := stranger.recv(100):
                heard += piece
        except ConnectionError:
            pass  # it hung up before all was said
        else:
            assert len(heard.split()) == 1
    door.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        door.accept()
    with contextlib.closing(come(open_gate)):
        door.settimeout(10.0)
        door.accept()[0].close()


def test_another_secret_opens_nothing(open_gate: Gate) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1, port \d+: the other side does not speak as a gate of hsm"):
        come(open_gate, "another")


def test_who_has_the_port_and_not_the_secret_is_told_nothing() -> None:
    """A pilot may be gone, and its port somebody else's."""
    heard: list[bytes] = []

    def pretend() -> None:
        guest, _ = listener.accept()
        with guest:
            guest.sendall(b"0" * 32 + b"\n")
            heard.append(guest.recv(1000))
            guest.sendall(b"0" * 64 + b"\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        impostor = threading.Thread(target=pretend)
        impostor.start()
        with pytest.raises(Unavailable, match="the other side does not know the secret"):
            pilot_agent.enter(Address(["127.0.0.1"], listener.getsockname()[1], SECRET))
        impostor.join()
    assert SECRET.encode() not in heard[0]


def test_the_next_name_is_tried(open_gate: Gate, door: socket.socket) -> None:
    address = Address(["no-such-host.invalid", "127.0.0.1"], open_gate.port, SECRET)
    with contextlib.closing(pilot_agent.enter(address)):
        door.accept()[0].close()


def test_strangers_who_say_nothing_are_sent_away(door: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HANDSHAKE", 0.2)
    monkeypatch.setattr(gate, "STRANGERS", 2)
    made = Gate(SECRET, "socket")
    strangers = [socket.create_connection(("127.0.0.1", made.port), 10) for _ in range(6)]
    for stranger in strangers:
        with stranger:
            stranger.recv(1000)
            assert stranger.recv(1000) == b""  # it was sent away
    with contextlib.closing(come(made)):
        door.accept()[0].close()
    made.close(5.0)


def test_nobody_is_let_in_after_the_end(door: socket.socket) -> None:
    made = Gate(SECRET, "socket")
    passage = come(made)
    agent, _ = door.accept()
    agent.sendall(b"the last words\n")
    agent.close()
    made.close(5.0)
    assert passage.readline(100) == b"the last words\n"
    assert passage.readline(100) == b""
    assert passage.wait(1.0) == 0
    passage.close()
    with pytest.raises(Unavailable, match="refused"):
        come(made)
