"""The way to an agent, and the line to it, when the connection is lost in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hsm_core.exceptions import Unavailable
from hsm_core.sources.ssh.connection import Connection
from hsm_core.sources.ssh.line import RemoteLine
from hsm_core.sources.ssh.program import Program
from hsm_core.sources.ssh.visit import Visit, boarded, new_token, start, visit
from hsm_core.testing import wait_until
from tests.testbed.sshd import SshHost


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    connection = Connection("far", ssh_host.config())
    connection.open()
    yield connection
    connection.close()


def lose(connection: Connection, host: SshHost) -> None:
    host.kill_sessions()
    wait_until(lambda: not connection.alive, "the connection to be lost")


def test_lost_before_the_agent_is_told_anything(connection: Connection, ssh_host: SshHost, far_python: Path) -> None:
    def prepare(found: Mapping[str, Any]) -> Visit:
        lose(connection, ssh_host)
        return Visit({}, b"")

    with pytest.raises(Unavailable, match="far: the program has ended, or the connection was lost"):
        visit(connection, ssh_host.config(python=str(far_python)), "far", prepare)


def test_lost_before_our_code_is_there(connection: Connection, ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python))
    token = new_token()
    program = start(connection, config, token, "visitor")
    wait_until(program.channel.recv_ready, "what the boot program says")
    lose(connection, ssh_host)
    with pytest.raises(Unavailable, match="far: the program has ended, or the connection was lost"):
        boarded(program, token, config, "far")


def test_lost_before_the_agent_is_greeted(connection: Connection, ssh_host: SshHost) -> None:
    def reach() -> Program:
        program = connection.run("exec cat")
        lose(connection, ssh_host)
        return program

    line = RemoteLine(reach, 1, lambda why: None, lambda: None)
    with pytest.raises(Unavailable, match="the connection was lost"):
        line.open()
    line.close()
