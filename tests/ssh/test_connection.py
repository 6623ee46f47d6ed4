"""A connection to a host: logging in once, and running programs over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import paramiko
import pytest

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh import connection as connection_module
from hsm_core.ssh import program as program_module
from hsm_core.ssh.connection import Connection
from hsm_core.testing import wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome, SshHost

EVERY_BYTE = bytes(range(256)) * (12 << 10)
"""3 MiB: more than a channel's window"""
NOISE = "echo welcome; printf 'no line end'; echo trouble >&2\n"
"""a profile"""


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    """To `ssh_host`, open."""
    made = Connection("server1", ssh_host.config())
    made.open()
    yield made
    made.close()


def output(connection: Connection, script: str) -> bytes:
    """All that a script writes, having got no input."""
    program = connection.run(script)
    program.stdin.close()
    parts = []
    while part := program.stdout.read(1 << 20):
        parts.append(part)
    assert program.wait(30) == 0, program.errors()
    return b"".join(parts)


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


def test_opening_again_changes_nothing(connection: Connection, ssh_host: SshHost) -> None:
    connection.open()
    assert connection.alive
    assert ssh_host.logins() == 1


def test_closed_is_closed_for_good(connection: Connection) -> None:
    connection.close()
    connection.close()
    assert not connection.alive
    with pytest.raises(Unavailable, match=r"server1 \(.*\): not connected"):
        connection.run("true")
    with pytest.raises(Unavailable, match=r"server1 \(.*\): the connection was closed"):
        connection.open()


def test_every_byte_comes_through_in_both_directions(connection: Connection) -> None:
    program = connection.run("exec cat")

    def write() -> None:
        program.stdin.write(EVERY_BYTE)
        program.stdin.close()

    writing = threading.Thread(target=write)
    writing.start()
    came = bytearray()
    while part := program.stdout.read(1 << 20):
        came += part
    writing.join()
    assert bytes(came) == EVERY_BYTE
    assert program.wait(30) == 0


def test_lines_are_read_up_to_a_limit(connection: Connection) -> None:
    program = connection.run("printf 'one\\n\\nthree'; printf '%05000d\\nend' 7")
    assert program.stdout.readline(100) == b"one\n"
    assert program.stdout.readline(100) == b"\n"
    assert program.stdout.readline(10) == b"three00000"
    assert program.stdout.read(3) == b"000"
    assert len(program.stdout.readline(10_000)) == 5000 - 5 - 3 + 1
    assert program.stdout.readline(100) == b"end"
    assert program.stdout.readline(100) == b""


def test_a_script_is_any_text_and_no_list_of_processes_shows_it(connection: Connection, ssh_host: SshHost) -> None:
    script = """echo 'a '"'"'b'"'"' $(echo "c") `echo d`'
echo "ü \\\\ !! %s"
: secret-word
exec sleep 600"""
    program = connection.run(script)
    assert program.stdout.readline(100) == b"a 'b' $(echo \"c\") `echo d`\n"
    assert program.stdout.readline(100) == "ü \\ !! %s\n".encode()
    wait_until(lambda: len(ssh_host.programs("sleep 600")) == 1, "the script to come to its end")
    assert not [line for p in ssh_host.programs("") for line in p.cmdline() if "secret-word" in line]
    program.close()


def test_much_on_standard_error_blocks_nothing_and_its_end_is_kept(connection: Connection) -> None:
    assert output(connection, "head -c 5000000 /dev/zero >&2; echo done") == b"done\n"
    program = connection.run("head -c 5000000 /dev/zero | tr '\\0' x >&2; echo last words >&2; exit 1")
    assert program.wait(30) == 1
    assert program.errors().endswith("xxxlast words\n")
    assert len(program.errors()) == program_module.ERRORS_KEPT


def test_standard_error_is_read_on_whatever_waits_for_standard_output(connection: Connection) -> None:
    program = connection.run("read x; echo x >&2; read x; head -c 5000000 /dev/zero >&2; echo done")
    program.channel.settimeout(0.01)  # as while the beginning is waited for
    program.stdin.write(b"\n")
    wait_until(lambda: program.errors() == "x\n", "what it writes first")
    with pytest.raises(TimeoutError):
        program.stdout.read(100)
    program.channel.settimeout(None)
    program.stdin.write(b"\n")
    assert program.stdout.readline(100) == b"done\n"


def test_a_killed_program_is_told_from_a_lost_connection(connection: Connection, ssh_host: SshHost) -> None:
    program = connection.run("exec sleep 600")
    wait_until(lambda: ssh_host.programs("sleep 600") != [], "the program to run")
    ssh_host.programs("sleep 600")[0].kill()
    assert program.wait(30) == -1
    assert connection.alive


def test_nobody_waits_longer_than_asked(connection: Connection) -> None:
    program = connection.run("exec cat")
    with pytest.raises(Unavailable, match=r"a command did not end within 0\.1 s"):
        program.wait(0.1)
    program.stdin.close()
    assert program.wait(30) == 0


def test_writing_to_a_program_that_has_ended(connection: Connection) -> None:
    program = connection.run("exit 0")
    assert program.wait(30) == 0
    wait_until(lambda: program.channel.closed, "the channel to close")
    with pytest.raises(BrokenPipeError):
        program.stdin.write(b"x")
    program.stdin.close()
    with pytest.raises(ValueError, match="closed file"):
        program.stdin.write(b"x")


def test_files_by_sftp(connection: Connection, ssh_host: SshHost) -> None:
    with connection.sftp() as sftp, sftp.open("new file", "wb") as file:
        file.write(EVERY_BYTE)
    assert (ssh_host.home / "new file").read_bytes() == EVERY_BYTE
    assert ssh_host.logins() == 1


def test_sftp_past_a_profile_that_prints(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"Subsystem": "sftp /usr/lib/openssh/sftp-server"}, files={".bashrc": NOISE})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    with connection.sftp() as sftp:
        assert ".bashrc" in sftp.listdir(".")
    connection.close()


def test_a_host_without_sftp(make_host: MakeHost, ssh_home: SshHome, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host({"Subsystem": "other /bin/false"})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    monkeypatch.setattr(connection_module, "SFTP_SERVERS", ("/nonexistent/sftp-server",))
    with pytest.raises(Unavailable, match=r"server1 \(.*\): no files can be transferred by SFTP"):
        connection.sftp()
    connection.close()


# --- login shells and profiles -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "profile"),
    [
        ("/bin/sh", ""),
        ("/bin/bash", ".bashrc"),
        ("/usr/bin/fish", ".config/fish/config.fish"),
        ("/usr/bin/zsh", ".zshenv"),
        ("/usr/bin/tcsh", ".tcshrc"),
    ],
)
def test_shells_and_what_their_profiles_print(make_host: MakeHost, ssh_home: SshHome, shell: str, profile: str) -> None:
    host = make_host(login_shell=shell, files={profile: NOISE} if profile else {})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    program = connection.run("echo 'it is'; echo bad >&2; exec cat")
    program.stdin.write(b"mine")
    program.stdin.close()
    assert program.stdout.readline(100) == b"it is\n"
    assert program.stdout.readline(100) == b"mine"
    assert program.wait(30) == 0
    assert program.errors() == "bad\n"
    connection.close()


def test_a_profile_that_takes_long(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host(files={".bashrc": f"sleep 3; {NOISE}"})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    assert output(connection, "echo here") == b"here\n"
    connection.close()


def test_a_home_with_an_odd_name(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host(home='it\'s a "home" $(exit 3)')
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    assert output(connection, "cd; pwd").decode() == f"{host.home}\n"
    connection.close()


def test_a_path_without_anything(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"SetEnv": "PATH=/nonexistent"}, login_shell="/bin/sh")
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    assert output(connection, "echo $PATH") == b"/nonexistent\n"
    connection.close()


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("echo this account is closed; exit 7\n", "ended with exit code 7. It said: this account is closed"),
        ("exec sleep 600\n", "did not begin within 2 s, and said nothing"),
        ("exec yes\n", r"did not begin\. It said: y\\ny\\ny\\n.* characters more"),
        ("kill -9 $$\n", "the login shell was killed, and said nothing"),
    ],
)
def test_a_profile_that_lets_nothing_run(
    make_host: MakeHost, ssh_home: SshHome, monkeypatch: pytest.MonkeyPatch, profile: str, words: str
) -> None:
    monkeypatch.setattr(program_module, "START", 2.0)
    host = make_host(files={".bashrc": profile})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    with pytest.raises(Unavailable, match=f"(?s){words}"):
        connection.run("echo here")
    connection.close()


def test_a_shell_that_is_dead_before_the_script_is_sent(
    make_host: MakeHost, ssh_home: SshHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = paramiko.Channel.sendall

    def send_late(channel: paramiko.Channel, data: bytes) -> None:
        wait_until(lambda: channel.closed, "the end of the shell")
        send(channel, data)

    monkeypatch.setattr(paramiko.Channel, "sendall", send_late)
    host = make_host(files={".bashrc": "kill -9 $$\n"})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    with pytest.raises(Unavailable, match="the login shell was killed, and said nothing"):
        connection.run("echo here")
    connection.close()


# --- few channels, few logins --------------------------------------------------------------------


def test_many_programs_need_one_login_and_wait_for_room(connection: Connection, ssh_host: SshHost) -> None:
    running = [connection.run("exec cat") for _ in range(7)]
    came: list[bytes] = []
    waiting = threading.Thread(target=lambda: came.append(output(connection, "echo late")))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    running[3].close()
    waiting.join(60)
    assert came == [b"late\n"]
    assert ssh_host.logins() == 1


def test_nobody_waits_for_room_for_ever(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "BUSY", 0.2)
    for _ in range(7):
        connection.run("exec cat")
    with pytest.raises(Unavailable, match=r"all channels have been busy for 0\.2 s"):
        connection.run("true")


def test_one_session_a_login(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"MaxSessions": "1"})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    programs = [connection.run("exec cat") for _ in range(3)]
    for number, program in enumerate(programs):
        program.stdin.write(b"%d\n" % number)
        assert program.stdout.readline(10) == b"%d\n" % number
    assert host.logins() == 3
    for program in programs:
        program.stdin.close()
        assert program.wait(30) == 0
    for _ in range(3):
        assert output(connection, "echo one") == b"one\n"
    assert host.logins() == 3
    connection.close()


def test_no_session_at_all(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"MaxSessions": "0"})
    ssh_home.trust(host)
    connection = Connection("server1", host.config())
    connection.open()
    with pytest.raises(Unavailable, match="it lets us log in, but run nothing"):
        connection.run("true")
    connection.close()


def test_one_login_at_a_time(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"MaxStartups": "1"})
    ssh_home.trust(host)
    connections = [Connection(f"server{i}", host.config()) for i in range(6)]
    failed: list[SourceError] = []

    def open_it(connection: Connection) -> None:
        try:
            connection.open(timeout=60)
        except SourceError as e:
            failed.append(e)

    threads = [threading.Thread(target=open_it, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    host.wait_for_log("beginning MaxStartups throttling|drop connection")
    for connection in connections:
        connection.close()
