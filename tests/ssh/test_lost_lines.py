"""Connections that are lost: killed, cut, swallowed; and slow ones, which are not."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from hsm_core.config import SourceConfig
from hsm_core.exceptions import Unavailable
from hsm_core.ssh import login
from hsm_core.ssh.connection import Connection
from hsm_core.testing import wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.network import NetnsHost
from tests.testbed.sshd import SshHome, SshHost


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has to say something within few seconds."""
    monkeypatch.setattr(login, "QUIET", 1)
    monkeypatch.setattr(login, "SILENCE", 3)


def opened(host: SshHost) -> Connection:
    connection = Connection("server1", host.config())
    connection.open()
    return connection


def test_a_killed_session_ends_what_runs_over_it(ssh_host: SshHost) -> None:
    connection = opened(ssh_host)
    program = connection.run("exec sleep 600")
    ssh_host.kill_sessions()
    with pytest.raises(Unavailable, match=r"server1 \(.*\): the connection was lost while a command ran"):
        program.wait(60)
    assert program.stdout.read(10) == b""
    with pytest.raises(BrokenPipeError):
        program.stdin.write(b"x")
    assert not connection.alive
    with pytest.raises(Unavailable, match="not connected"):
        connection.run("true")
    connection.open()
    assert connection.run("exit 4").wait(30) == 4
    assert ssh_host.logins() == 2
    connection.close()


def test_a_host_that_swallows_everything_is_noticed(netns_host: NetnsHost, impatient: None) -> None:
    connection = opened(netns_host)
    program = connection.run("exec sleep 600")
    netns_host.blackhole()
    with pytest.raises(Unavailable, match="the connection was lost"):
        program.wait(60)
    assert not connection.alive
    with pytest.raises(Unavailable, match=r"no answer within|can't be reached"):
        connection.open(timeout=1)
    netns_host.heal()
    connection.open()
    connection.close()


def test_one_who_writes_into_a_black_hole_is_not_stuck_for_ever(netns_host: NetnsHost, impatient: None) -> None:
    connection = opened(netns_host)
    program = connection.run("exec cat >/dev/null")
    netns_host.blackhole()
    with pytest.raises(BrokenPipeError):
        program.stdin.write(bytes(32 << 20))
    connection.close()


def test_a_cut_line_is_noticed_and_can_be_opened_again(netns_host: NetnsHost, impatient: None) -> None:
    connection = opened(netns_host)
    program = connection.run("exec sleep 600")
    netns_host.partition()
    with pytest.raises(Unavailable):
        program.wait(60)
    netns_host.heal()
    connection.open()
    assert len(netns_host.programs("sleep 600")) == 1
    connection.close()


def test_a_short_cut_harms_nothing(netns_host: NetnsHost) -> None:
    connection = opened(netns_host)
    program = connection.run("while read line; do echo $line; done")
    netns_host.partition()
    program.stdin.write(b"hello\n")
    netns_host.heal()
    assert program.stdout.readline(100) == b"hello\n"
    assert netns_host.logins() == 1
    connection.close()


def test_a_quiet_host_that_answers_stays_connected(
    ssh_host: SshHost, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    connection = opened(ssh_host)
    program = connection.run("sleep 5; exit 5")
    assert program.wait(60) == 5
    assert caplog.records == []
    connection.close()


def test_a_slow_line_is_not_given_up(netns_host: NetnsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    # As 64 kbit/s to the 40 seconds there are otherwise.
    monkeypatch.setattr(login, "QUIET", 2)
    monkeypatch.setattr(login, "SILENCE", 10)
    netns_host.slow(256)
    connection = opened(netns_host)
    program = connection.run("wc -c")
    program.stdin.write(bytes(200_000))
    program.stdin.close()
    assert program.stdout.readline(100) == b"200000\n"
    connection.close()


def test_a_frozen_host_behind_a_jump_host_is_noticed(make_host: MakeHost, ssh_home: SshHome, impatient: None) -> None:
    jump, host = make_host(), make_host()
    ssh_home.trust(jump, host)
    lines = f"Host {host.address}\nProxyJump {jump.user}@{jump.address}:{jump.port}\n"
    ssh_home.config.write_text(f"{lines}Host {jump.address}\nIdentityFile {jump.key.path}\n")
    connection = opened(host)
    program = connection.run("exec sleep 600")
    with host.freeze(), pytest.raises(Unavailable, match="the connection was lost"):
        program.wait(60)
    connection.close()


def test_a_channel_through_a_lost_jump_host_can_be_closed() -> None:
    class Lost:
        def close(self) -> None:
            raise EOFError  # as paramiko's channels do

    login.Heard(Lost()).close()


def test_closing_ends_whoever_waits(ssh_host: SshHost) -> None:
    connection = opened(ssh_host)
    program = connection.run("exec sleep 600")
    told: list[str] = []

    def wait() -> None:
        with pytest.raises(Unavailable) as error:
            program.wait(60)
        told.append(str(error.value))

    waiting = threading.Thread(target=wait)
    waiting.start()
    connection.close()
    waiting.join(60)
    assert len(told) == 1
    assert "the connection was lost" in told[0]
    connection.close()


def test_a_connection_can_be_closed_while_it_connects(netns_host: NetnsHost) -> None:
    netns_host.blackhole()
    close_while_opening(netns_host.config())


def test_a_connection_can_be_closed_while_it_is_dropped_again_and_again(ssh_home: SshHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the end of the test
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        close_while_opening(SourceConfig(type="ssh", host="127.0.0.1", port=server.getsockname()[1]))
        server.shutdown(socket.SHUT_RDWR)


def close_while_opening(config: SourceConfig) -> None:
    connection = Connection("server1", config)
    told: list[BaseException] = []

    def open_it() -> None:
        try:
            connection.open(timeout=300)
        except Unavailable as e:
            told.append(e)

    opening = threading.Thread(target=open_it)
    opening.start()
    wait_until(lambda: bool(connection._logins), "the login to begin")
    connection.close()
    opening.join(60)
    assert len(told) == 1
    assert not connection.alive
