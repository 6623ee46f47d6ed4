"""A connection to a host: logging in once, and running programs over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hsm_core.sources.ssh.connection import Connection
from tests.testbed.sshd import SshHost


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    """To `ssh_host`, open."""
    made = Connection("server1", ssh_host.config())
    made.open()
    yield made
    made.close()


def test_a_program_reads_and_writes_and_tells_how_it_ended(connection: Connection, ssh_host: SshHost) -> None:
    program = connection.run("cat; echo 'it'\"'\"'s \"done\"'; echo bad >&2; exit 3")
    program.stdin.write(b"hello\nworld")
    program.stdin.close()
    assert program.stdout.readline(100) == b"hello\n"
    assert program.stdout.readline(100) == b'worldit\'s "done"\n'
    assert program.stdout.read(100) == b""
    assert program.wait(30) == 3
    assert program.errors() == "bad\n"
    assert connection.address == f"{ssh_host.user}@{ssh_host.address}:{ssh_host.port}"
