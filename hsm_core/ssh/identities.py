"""With which keys one logs in: those of an agent, and those in files, as ssh finds them."""

from __future__ import annotations

import base64
import binascii
import getpass
import io
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.agent import AgentSSH

from hsm_core.exceptions import SourceError
from hsm_core.ssh.host_keys import shown_path
from hsm_core.text import printable

DEFAULTS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
AGENT_PATIENCE = 60.0
"""seconds an agent has for an answer: it may ask somebody first"""

_asking = threading.Lock()
"""one question at a time on the terminal"""


class Identities:
    """The keys for one source. Keys that were opened stay open: nobody is asked twice."""

    def __init__(self, ssh_key: str | None) -> None:
        self._ssh_key = None if ssh_key is None else Path(os.path.expanduser(ssh_key))
        self._opened: dict[Path, paramiko.PKey] = {}

    def offered(self, where: str, settings: Mapping[str, Any], tried: list[str]) -> Iterator[paramiko.PKey]:
        """The keys in the order in which they are to be tried; what each is goes to `tried`.

        Named keys come before others of the agent, and those that need a passphrase last. `settings` is what the ssh
        configuration says of the host. Raises SourceError where a key that was named can't be used.
        """
        agent = Agent(agent_socket(settings))
        try:
            yield from self._offered(where, settings, agent, tried)
        finally:
            agent.close()

    def _offered(
        self, where: str, settings: Mapping[str, Any], agent: Agent, tried: list[str]
    ) -> Iterator[paramiko.PKey]:
        held = {key.asbytes(): key for key in agent.get_keys()}
        encrypted = []
        for path in self.files(settings):
            by_agent = held.pop(public_part(path), None)
            if by_agent is not None:
                tried.append(f"{shown_path(path)} (from the agent)")
                yield by_agent
                continue
            try:
                key = self._opened[path] if path in self._opened else self._open(path, None)
            except EncryptedKey:
                encrypted.append(path)
                continue
            except (OSError, ValueError) as e:
                if path == self._ssh_key:
                    raise SourceError(f"{where}: ssh_key {shown_path(path)} can't be used: {_why(e)}") from e
                if not isinstance(e, FileNotFoundError):
                    tried.append(f"{shown_path(path)} (can't be used: {_why(e)})")
                continue
            tried.append(shown_path(path))
            yield key
        if settings.get("identitiesonly", "no").lower() != "yes":
            for key in held.values():
                tried.append(f"{printable(key.comment or key.get_name(), 100)} (from the agent)")
                yield key
        for path in encrypted:
            opened = self._ask(where, path, tried)
            if opened is not None:
                tried.append(shown_path(path))
                yield opened

    def files(self, settings: Mapping[str, Any]) -> list[Path]:
        """The files in which keys are looked for, in this order; `settings` as for `offered`."""
        configured = [Path(os.path.expanduser(name)) for name in settings.get("identityfile", ())]
        configured = [path for path in configured if path.name.lower() != "none"]
        own = [self._ssh_key] if self._ssh_key is not None else []
        named = [*own, *configured] or [Path(os.path.expanduser(name)) for name in DEFAULTS]
        return list(dict.fromkeys(named))

    def _open(self, path: Path, passphrase: str | None) -> paramiko.PKey:
        self._opened[path] = read_key(path, passphrase)
        return self._opened[path]

    def _ask(self, where: str, path: Path, tried: list[str]) -> paramiko.PKey | None:
        """The key, if somebody at the terminal gives the passphrase; asks once."""
        with _asking:
            if path in self._opened:
                return self._opened[path]
            if not on_terminal():
                tried.append(
                    f"{shown_path(path)} (needs a passphrase, and nobody can be asked: ssh-add {shown_path(path)})"
                )
                return None
            try:
                passphrase = getpass.getpass(f"{where}: passphrase of {shown_path(path)}: ")
            except (EOFError, OSError):
                passphrase = ""
        try:
            if passphrase:
                return self._open(path, passphrase)
        except (OSError, ValueError):
            pass
        tried.append(f"{shown_path(path)} (the passphrase was wrong)")
        return None


class EncryptedKey(Exception):
    """The key needs a passphrase."""


def read_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """The private key of a file in any of the formats that ssh-keygen writes, with its certificate if it has one.

    Raises EncryptedKey where it needs a passphrase and none is given, OSError and ValueError where it can't be read,
    ValueError also where the passphrase is wrong.
    """
    data = path.read_bytes()
    secret = None if passphrase is None else passphrase.encode()
    loaded: Any = None
    for load in (serialization.load_ssh_private_key, serialization.load_pem_private_key):
        try:
            loaded = load(data, secret)
            break
        except ValueError:
            continue
        except TypeError as e:
            raise EncryptedKey from e
        except UnsupportedAlgorithm as e:
            raise ValueError(f"a key of this kind is not supported here; add it to an agent ({e})") from e
    if loaded is None:
        raise ValueError("it holds no private key" if passphrase is None else "the passphrase is wrong")
    kind = next((ours for theirs, ours in _CLASSES.items() if isinstance(loaded, theirs)), None)
    if kind is None:
        raise ValueError("a key of this kind is not supported here")
    plain = serialization.NoEncryption()
    text = loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain).decode()
    key: paramiko.PKey = kind.from_private_key(io.StringIO(text))
    certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.exists():
        key.load_certificate(str(certificate))
    return key


_CLASSES = {
    ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
    rsa.RSAPrivateKey: paramiko.RSAKey,
}


def public_part(path: Path) -> bytes:
    """The public key beside a private one, as it is sent; empty where it is not there."""
    try:
        words = path.with_name(f"{path.name}.pub").read_text().split()
        return base64.b64decode(words[1], validate=True)
    except (OSError, UnicodeDecodeError, IndexError, binascii.Error):
        return b""


class Agent(AgentSSH):  # type: ignore[misc]
    """The agent behind a socket, without keys where it does not answer.

    paramiko.Agent looks at SSH_AUTH_SOCK only, and waits for ever for an agent that hangs.
    """

    def __init__(self, path: str | None) -> None:
        super().__init__()
        if path is None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(AGENT_PATIENCE)
        try:
            connection.connect(path)
            self._connect(connection)
        except (OSError, paramiko.SSHException):
            connection.close()
            self._conn = None

    def close(self) -> None:
        self._close()


def agent_socket(settings: Mapping[str, Any]) -> str | None:
    """Where the agent listens, by IdentityAgent of ssh_config(5) or SSH_AUTH_SOCK; None for no agent."""
    name = settings.get("identityagent", "SSH_AUTH_SOCK").strip('"')
    if name.lower() == "none":
        return None
    if name == "SSH_AUTH_SOCK":
        name = "$SSH_AUTH_SOCK"
    path = os.path.expandvars(os.path.expanduser(name.replace("%d", "~")))
    return None if not path or path.startswith("$") else path


def on_terminal() -> bool:
    """Whether somebody can be asked: there is a terminal, and we are in its foreground."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
