"""With which keys one gets in, from files and agents; and what is said where none is taken."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.identities import EncryptedKey, read_key
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import ClientKey, SshHome, SshHost, free_port, make_key


class Agent:
    """A real ssh-agent."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "agent"
        self._process = subprocess.Popen(["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def add(self, *keys: ClientKey) -> None:
        for key in keys:
            environment = {**os.environ, "SSH_AUTH_SOCK": str(self.socket), "SSH_ASKPASS_REQUIRE": "force"}
            askpass = key.path.with_name("askpass")
            askpass.write_text(f"#!/bin/sh\necho '{key.passphrase}'\n")
            askpass.chmod(0o700)
            environment["SSH_ASKPASS"] = str(askpass)
            subprocess.run(["ssh-add", str(key.path)], check=True, capture_output=True, env=environment)

    def end(self) -> None:
        self._process.kill()
        with self._process:  # waits, and closes its pipe
            pass


@pytest.fixture
def agent(tmp_path: Path, ssh_home: SshHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent without keys, the one of $SSH_AUTH_SOCK."""
    made = Agent(tmp_path)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(made.socket))
    yield made
    made.end()


def opens(host: SshHost, **fields: object) -> None:
    connection = Connection("server1", host.config(**fields))
    try:
        connection.open()
        assert connection.run("exit 6").wait(30) == 6
    finally:
        connection.close()


def refusal(host: SshHost, **fields: object) -> str:
    with pytest.raises(SourceError) as error:
        opens(host, **fields)
    assert type(error.value) is SourceError, "that is nothing to try again"
    words = str(error.value)
    where = f"server1 ({fields.get('user', host.user)}@{host.address}:{host.port}): "
    assert words.startswith(where)
    return words.removeprefix(where)


@pytest.fixture
def stranger(tmp_path: Path) -> ClientKey:
    """A key that no host lets in."""
    return ClientKey(tmp_path, "stranger")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_every_kind_in_the_usual_places(ssh_host: SshHost, ssh_home: SshHome, kind: str) -> None:
    key = ClientKey(ssh_home.ssh, f"id_{kind}", kind)
    ssh_host.authorized_keys.write_text(key.public)
    opens(ssh_host, ssh_key=None)


def test_a_key_below_the_home(ssh_host: SshHost, ssh_home: SshHome) -> None:
    key = ClientKey(ssh_home.folder, "my key")
    ssh_host.authorized_keys.write_text(key.public)
    opens(ssh_host, ssh_key="~/my key")


def test_a_key_that_the_ssh_configuration_names(ssh_host: SshHost, ssh_home: SshHome, stranger: ClientKey) -> None:
    ssh_home.config.write_text(f"IdentityFile {stranger.path}\nIdentityFile ~/.ssh/none\n")
    assert "it takes none of our keys: " in refusal(ssh_host, ssh_key=None)
    with open(ssh_home.config, "a") as file:
        file.write(f"IdentityFile {ssh_host.key.path}\n")
    opens(ssh_host, ssh_key=None)


def test_the_wrong_key(ssh_host: SshHost, stranger: ClientKey) -> None:
    words = refusal(ssh_host, ssh_key=str(stranger.path))
    assert words.startswith(f"it takes none of our keys: {stranger.path}. Add one of them there with ssh-copy-id")


def test_what_a_host_says_to_those_it_turns_away(
    make_host: MakeHost, ssh_home: SshHome, tmp_path: Path, stranger: ClientKey
) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Closed for\x1b[2J maintenance\n")
    host = make_host({"Banner": str(banner)})
    ssh_home.trust(host)
    assert refusal(host, ssh_key=str(stranger.path)).endswith(". It says: Closed for\\x1b[2J maintenance")


def test_a_user_who_is_not_there(ssh_host: SshHost) -> None:
    assert "look whether the user is right" in refusal(ssh_host, user="nobody-of-that-name")


def test_no_key_at_all(ssh_host: SshHost) -> None:
    assert refusal(ssh_host, ssh_key=None).startswith("there is no key to log in with: no agent has one")


def test_key_files_that_are_none(ssh_host: SshHost, ssh_home: SshHome, tmp_path: Path) -> None:
    missing, junk = tmp_path / "missing", tmp_path / "junk"
    assert refusal(ssh_host, ssh_key=str(missing)) == f"ssh_key {missing} can't be used: No such file or directory"
    junk.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    assert refusal(ssh_host, ssh_key=str(junk)) == f"ssh_key {junk} can't be used: it holds no private key"
    ssh_home.config.write_text(f"IdentityFile {junk}\n")
    opens(ssh_host)
    assert f"{junk} (can't be used: it holds no private key)" in refusal(ssh_host, ssh_key=None)


def test_a_host_that_takes_no_keys(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"})
    ssh_home.trust(host)
    assert refusal(host) == "it lets nobody log in with a key, only with password"


def test_a_host_that_wants_more_than_a_key(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host({"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"})
    ssh_home.trust(host)
    assert "but wants password as well, which hsm can't give" in refusal(host)


@pytest.mark.parametrize("options", [["-t", "rsa", "-m", "PEM"], ["-t", "ecdsa", "-m", "PKCS8"], ["-t", "ed25519"]])
@pytest.mark.parametrize("passphrase", ["", "two words ü"])
def test_every_format_of_ssh_keygen(tmp_path: Path, options: Sequence[str], passphrase: str) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", *options, "-N", passphrase, "-f", str(path)], check=True)
    if passphrase:
        with pytest.raises(EncryptedKey):
            read_key(path, None)
        with pytest.raises(ValueError, match="passphrase is wrong"):
            read_key(path, "wrong")
    key = read_key(path, passphrase or None)
    assert key.get_base64() == path.with_name("key.pub").read_text().split()[1]


def test_a_certificate(ssh_host: SshHost, ssh_home: SshHome, tmp_path: Path) -> None:
    authority, key = tmp_path / "authority", ClientKey(tmp_path, "certified")
    make_key(authority)
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", ssh_host.user, f"{key.path}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    ssh_host.authorized_keys.write_text(f"cert-authority {authority.with_name('authority.pub').read_text()}")
    opens(ssh_host, ssh_key=str(key.path))


# --- passphrases ---------------------------------------------------------------------------------


@pytest.fixture
def locked(ssh_host: SshHost, tmp_path: Path) -> ClientKey:
    """A key with a passphrase; `ssh_host` lets it in."""
    key = ClientKey(tmp_path, "locked", passphrase="open sesame")
    ssh_host.authorized_keys.write_text(key.public)
    return key


def test_nobody_is_asked_without_a_terminal(ssh_host: SshHost, locked: ClientKey) -> None:
    words = refusal(ssh_host, ssh_key=str(locked.path))
    assert f"{locked.path} (needs a passphrase, and nobody can be asked: ssh-add {locked.path})" in words


CLIENT = """
import sys
from hsm_core.config import SourceConfig
from hsm_core.ssh.connection import Connection
host, port, user, key = sys.argv[1:]
connection = Connection("server1", SourceConfig(type="ssh", host=host, port=int(port), user=user, ssh_key=key))
try:
    for _ in range(2):
        connection.open()
        connection._logins[0].close()  # it is lost
    print("logged in twice")
except Exception as e:
    print(type(e).__name__, e)
"""


@pytest.mark.parametrize(
    ("typed", "answer"), [("open sesame", "logged in twice"), ("wrong", "(the passphrase was wrong)")]
)
def test_one_is_asked_once_on_a_terminal(ssh_host: SshHost, locked: ClientKey, typed: str, answer: str) -> None:
    told = on_terminal(ssh_host, locked, typed)
    assert told.count("passphrase of ") == 1
    assert f"server1 ({ssh_host.user}@{ssh_host.address}:{ssh_host.port}): passphrase of {locked.path}: " in told
    assert answer in told
    assert typed not in told.replace(answer, "")


def on_terminal(host: SshHost, key: ClientKey, typed: str) -> str:
    """What a client shows on a terminal on which somebody answers its question."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-c", CLIENT, host.address, str(host.port), host.user, str(key.path)]
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}

    def control() -> None:
        import fcntl

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(command, start_new_session=True, preexec_fn=control, **streams):  # type: ignore[call-overload]
        os.close(terminal)
        told, asked = b"", False
        with contextlib.suppress(OSError):  # the end of what a terminal shows
            while part := os.read(ours, 4096):
                told += part
                if not asked and b"passphrase of " in told and told.endswith(b": "):
                    os.write(ours, typed.encode() + b"\n")
                    asked = True
    os.close(ours)
    return told.decode()


# --- agents --------------------------------------------------------------------------------------


def test_an_agent_opens_what_needs_a_passphrase(ssh_host: SshHost, locked: ClientKey, agent: Agent) -> None:
    agent.add(locked)
    opens(ssh_host, ssh_key=None)
    opens(ssh_host, ssh_key=str(locked.path))


def test_another_agent_that_the_ssh_configuration_names(
    ssh_host: SshHost, ssh_home: SshHome, locked: ClientKey, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.add(locked)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert "there is no key to log in with" in refusal(ssh_host, ssh_key=None)
    ssh_home.config.write_text(f"IdentityAgent {agent.socket}\n")
    opens(ssh_host, ssh_key=None)
    monkeypatch.setenv("OTHER_AGENT", str(agent.socket))
    ssh_home.config.write_text('IdentityAgent "$OTHER_AGENT"\n')
    opens(ssh_host, ssh_key=None)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
    ssh_home.config.write_text("IdentityAgent none\n")
    assert "there is no key to log in with" in refusal(ssh_host, ssh_key=None)


def test_an_agent_that_is_gone(ssh_host: SshHost, agent: Agent) -> None:
    agent.end()
    assert "there is no key to log in with" in refusal(ssh_host, ssh_key=None)
    opens(ssh_host)


def test_an_agent_with_more_keys_than_a_host_hears(ssh_host: SshHost, agent: Agent, tmp_path: Path) -> None:
    agent.add(*(ClientKey(tmp_path, f"key{i}") for i in range(8)))
    words = refusal(ssh_host, ssh_key=None)
    assert "it ended the connection after 6 keys (" in words
    assert "IdentitiesOnly" in words
    opens(ssh_host)


def test_only_the_named_identities(ssh_host: SshHost, ssh_home: SshHome, agent: Agent, stranger: ClientKey) -> None:
    agent.add(ssh_host.key)
    opens(ssh_host, ssh_key=str(stranger.path))
    ssh_home.config.write_text("IdentitiesOnly yes\n")
    assert "it takes none of our keys" in refusal(ssh_host, ssh_key=str(stranger.path))
    opens(ssh_host)


# --- hosts that are not there --------------------------------------------------------------------


def unreachable(config: SourceConfig) -> str:
    connection = Connection("server1", config)
    with pytest.raises(Unavailable) as error:
        connection.open(timeout=5)
    assert not connection.alive
    return str(error.value)


def test_nobody_there(ssh_host: SshHost) -> None:
    port = free_port("127.0.0.1")
    words = unreachable(ssh_host.config(host="127.0.0.1", port=port))
    assert words.startswith(f"server1 ({ssh_host.user}@127.0.0.1:{port}): nothing listens there")
    ssh_host.stop()
    assert "nothing listens there" in unreachable(ssh_host.config())


def test_a_name_that_is_not_known(ssh_host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    words = unreachable(ssh_host.config(host="gpu-bxo"))
    assert "the name gpu-bxo is not known (Name or service not known)" in words


def test_a_name_that_can_be_none(ssh_host: SshHost) -> None:
    assert "is no name of a host" in refusal_of(ssh_host.config(host=70 * "x"))


def refusal_of(config: SourceConfig) -> str:
    with pytest.raises(SourceError) as error:
        Connection("server1", config).open()
    assert type(error.value) is SourceError
    return str(error.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "hung up before the login"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "hung up before the login"),
        (b"Not allowed at this time\r\n", "hung up before the login"),
        (b"SSH-2.0-x\r\n" + bytes(64), r"hung up before the login|no answer within \d"),
        (None, r"no answer within \d"),
    ],
)
def test_those_who_listen_but_are_no_sshd(ssh_home: SshHome, said: bytes | None, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the end of the test
                while True:
                    client, _ = server.accept()
                    stack.enter_context(client)
                    if said is not None:
                        client.sendall(said)
                        client.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=answer, daemon=True).start()
        config = SourceConfig(type="ssh", host="127.0.0.1", port=server.getsockname()[1], user="me")
        connection = Connection("server1", config)
        with pytest.raises(Unavailable, match=words):
            connection.open(timeout=2)
        server.shutdown(socket.SHUT_RDWR)
