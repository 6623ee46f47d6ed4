"""The way to a host by the user's ssh configuration, as `ssh` itself would go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh.connection import Connection
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome, SshHost


def connects(name: str, **fields: object) -> str:
    """Log in there; returns who one is there."""
    connection = Connection(name, SourceConfig(type="ssh", **fields))  # type: ignore[arg-type]
    try:
        connection.open()
        program = connection.run("id -un")
        return program.stdout.readline(100).decode().strip()
    finally:
        connection.close()


def block(name: str, host: SshHost, *more: str) -> str:
    """What ~/.ssh/config says of a host under a name."""
    lines = [
        f"HostName {host.address}",
        f"Port {host.port}",
        f"User {host.user}",
        f"IdentityFile {host.key.path}",
        *more,
    ]
    return f"Host {name}\n" + "".join(f"    {line}\n" for line in lines)


def words_of(name: str, error: type[SourceError] = SourceError, **fields: object) -> str:
    with pytest.raises(SourceError) as caught:
        connects(name, **fields)
    assert type(caught.value) is error
    return str(caught.value)


def test_an_alias_brings_all_that_is_needed(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text(block("gpu-box other", ssh_host))
    assert connects("gpu-box") == ssh_host.user
    assert connects("server1", host="gpu-box") == ssh_host.user


def test_our_own_settings_win(ssh_host: SshHost, ssh_home: SshHome, tmp_path: Path) -> None:
    wrong = f"Host gpu-box\nHostName {ssh_host.address}\nPort 1\nUser nobody\nIdentityFile {tmp_path / 'none'}\n"
    ssh_home.config.write_text(wrong)
    ours = {"port": ssh_host.port, "ssh_key": str(ssh_host.key.path)}
    assert connects("gpu-box", user=ssh_host.user, **ours) == ssh_host.user
    assert connects("server1", host=f"{ssh_host.user}@gpu-box", **ours) == ssh_host.user
    assert connects("server1", host=f"{ssh_host.user}@gpu-box", user=ssh_host.user, **ours) == ssh_host.user


def test_without_a_user_it_is_ourselves(ssh_host: SshHost) -> None:
    words = words_of("server1", host=ssh_host.address, port=ssh_host.port, ssh_key=str(ssh_host.key.path))
    assert words.startswith(f"server1 (root@{ssh_host.address}:{ssh_host.port}): it takes none of our keys")


@pytest.mark.parametrize("form", ["{user}@{address}:{port}", "ssh://{user}@{address}:{port}", "jump"])
def test_a_jump_host(make_host: MakeHost, ssh_home: SshHome, form: str) -> None:
    host, jump = make_host(), make_host()
    ssh_home.trust(host, jump)
    written = form.format(user=jump.user, address=jump.address, port=jump.port)
    ssh_home.config.write_text(
        block("gpu-box", host, f"ProxyJump {written}")
        + block("jump", jump)
        + f"Host {jump.address}\nIdentityFile {jump.key.path}\n"
    )
    assert connects("gpu-box") == host.user
    assert (jump.logins(), host.logins()) == (1, 1)


def test_several_jump_hosts_in_the_order_in_which_they_stand(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, first, second = make_host(), make_host(), make_host({"AllowTcpForwarding": "no"})
    ssh_home.trust(host, first, second)
    names = block("first", first) + block("second", second)
    ssh_home.config.write_text(names + block("gpu-box", host, "ProxyJump first,second"))
    words = words_of("gpu-box", Unavailable)
    assert f"gpu-box ({host.user}@{host.address}:{host.port}): the jump host does not get there: " in words
    assert (first.logins(), second.logins(), host.logins()) == (1, 1, 0)
    second.settings["AllowTcpForwarding"] = "yes"
    second.stop()
    second.start()
    assert connects("gpu-box") == host.user
    assert (first.logins(), second.logins(), host.logins()) == (2, 2, 1)


def test_a_jump_host_behind_a_jump_host(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, first, second = make_host(), make_host(), make_host()
    ssh_home.trust(host, first, second)
    ssh_home.config.write_text(
        block("first", first) + block("second", second, "ProxyJump first") + block("gpu-box", host, "ProxyJump second")
    )
    assert connects("gpu-box") == host.user
    assert (first.logins(), second.logins(), host.logins()) == (1, 1, 1)


def test_a_jump_host_for_all_is_reached_without_itself(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, jump = make_host(), make_host()
    ssh_home.trust(host, jump)
    ssh_home.config.write_text(block("jump", jump) + block("gpu-box", host) + "Host *\n    ProxyJump jump\n")
    assert connects("gpu-box") == host.user
    assert connects("jump") == jump.user
    assert (jump.logins(), host.logins()) == (2, 1)


def test_jumping_in_circles(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    others = "Host one\nProxyJump two\nHost two\nProxyJump one\n"
    ssh_home.config.write_text(block("gpu-box", host, "ProxyJump one") + others)
    assert "lead in a circle" in words_of("gpu-box")


def test_a_jump_host_that_is_not_there(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, jump = make_host(), make_host()
    ssh_home.trust(host, jump)
    ssh_home.config.write_text(block("jump", jump) + block("gpu-box", host, "ProxyJump jump"))
    jump.stop()
    words = words_of("gpu-box", Unavailable)
    assert words.startswith(f"gpu-box, jump host ({jump.user}@{jump.address}:{jump.port}): nothing listens there")


def test_a_proxy_command(ssh_host: SshHost, ssh_home: SshHome) -> None:
    relay = ssh_home.folder / "relay.py"
    relay.write_text(RELAY)
    command = f"ProxyCommand '{sys.executable}' ~/relay.py %h %p \"$HOME\""
    ssh_home.config.write_text(block("gpu-box", ssh_host, command))
    assert connects("gpu-box") == ssh_host.user


def test_a_proxy_command_that_fails(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text(block("gpu-box", ssh_host, "ProxyCommand echo no way >&2; exit 1"))
    words = words_of("gpu-box", Unavailable)
    assert words == f"gpu-box ({ssh_host.user}@{ssh_host.address}:{ssh_host.port}): its ProxyCommand said: no way"


def test_no_proxy_after_all(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text(block("gpu-box", ssh_host, "ProxyJump none", "ProxyCommand none"))
    assert connects("gpu-box") == ssh_host.user


def test_files_that_are_included(ssh_host: SshHost, ssh_home: SshHome) -> None:
    (ssh_home.ssh / "config.d").mkdir()
    (ssh_home.ssh / "config.d" / "10 hosts").write_text(block("gpu-box", ssh_host))
    (ssh_home.ssh / "wrong").write_text("User nobody\n")
    (ssh_home.ssh / "right").write_text(f"User {ssh_host.user}\n")
    ssh_home.config.write_text("Include config.d/*\nHost *\n    Port 1\n")
    assert connects("gpu-box") == ssh_host.user
    plain = block("gpu-box", ssh_host).replace(f"    User {ssh_host.user}\n", "    Include ~/.ssh/right\n")
    ssh_home.config.write_text(f"Host other\n    Include wrong\n{plain}    User nobody\n")
    assert connects("gpu-box") == ssh_host.user


def test_files_that_include_themselves(ssh_home: SshHome) -> None:
    ssh_home.config.write_text("Include config\n")
    assert "~/.ssh/config: files include each other more than 16 deep" in words_of("gpu-box")


def test_blocks_that_match(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ran = ssh_home.folder / "ran"
    wrong = ssh_home.ssh / "wrong"
    wrong.write_text("User nobody\n")
    ssh_home.config.write_text(
        f"Match host other exec 'touch {ran}'\n    User nobody\n"
        "Match exec 'exit 1'\n    User nobody\n    Include wrong\n"
        "Match !exec 'exit 0'\n    User nobody\n"
        f"Match host gpu-* exec 'test %n-%h-%p-%% = gpu-box-gpu-box-22-%'\n    User {ssh_host.user}\n"
        f"{block('gpu-box', ssh_host)}    User nobody\n"
    )
    assert connects("gpu-box") == ssh_host.user
    assert not ran.exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("Hots\n", "~/.ssh/config: Unparsable line Hots"),
        ('Host "gpu\n', "~/.ssh/config: Unparsable host"),
        ("Match host 'x\n", "~/.ssh/config: No closing quotation"),
        ("Include 'x\n", "~/.ssh/config: No closing quotation"),
        ("Port abc\n", "gpu-box: the ssh configuration for gpu-box can't be used: invalid literal for int()"),
        ("ProxyJump a:b:c\n", "'a:b:c' in its ProxyJump is no host"),
    ],
)
def test_a_faulty_ssh_configuration(ssh_home: SshHome, lines: str, words: str) -> None:
    ssh_home.config.write_text(lines)
    assert words in words_of("gpu-box")


def test_an_ssh_configuration_that_can_not_be_read(ssh_home: SshHome) -> None:
    ssh_home.config.mkdir()
    assert words_of("gpu-box") == "~/.ssh/config can't be read: Is a directory"


@pytest.mark.parametrize("by", ["argument", "ssh configuration"])
def test_compression(ssh_host: SshHost, ssh_home: SshHome, by: str) -> None:
    if by == "ssh configuration":
        ssh_home.config.write_text("Compression yes\n")
    connection = Connection("server1", ssh_host.config(), compress=by == "argument")
    connection.open()
    transport = connection.run("true").channel.get_transport()
    assert (transport.local_compression, transport.remote_compression) == ("zlib@openssh.com", "zlib@openssh.com")
    connection.close()


def test_it_is_light_to_look_at() -> None:
    code = (
        "import sys, hsm_core.ssh.connection as c; from hsm_core.config import SourceConfig\n"
        "c.Connection('x', SourceConfig(type='ssh'))\n"
        "print([m for m in ('fabric', 'paramiko', 'invoke', 'cryptography') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "[]\n"


RELAY = """
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def send():
    while data := os.read(0, 65536):
        line.sendall(data)
    line.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := line.recv(65536):
    os.write(1, data)
"""
