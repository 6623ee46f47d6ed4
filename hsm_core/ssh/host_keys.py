"""Whether a host is the one it says it is: its key is held against the known_hosts files, as ssh does.

Their format is told in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Every key that is not the known one is refused here, in
words that say how to settle it; only where `accept_new` was asked for is the key of an unknown host written down.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsm_core.exceptions import SourceError

log = logging.getLogger(__name__)

USER_FILES = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_FILES = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"


@dataclass(frozen=True)
class Entry:
    """One line of a known_hosts file."""

    file: Path
    line: int
    marker: str
    """`@revoked`, `@cert-authority` or nothing"""
    names: str
    """patterns of names as they stand there, or one hashed name"""
    key: bytes

    @property
    def kind(self) -> str:
        """The type that the key itself names."""
        return _kind(self.key)

    @property
    def place(self) -> str:
        return f"{shown_path(self.file)}:{self.line}"


@dataclass(frozen=True)
class Peer:
    """A host as its key is looked up, and as people know it."""

    where: str
    """who is meant, for messages: `server1 (me@host:22)`"""
    host: str
    port: int
    files: tuple[Path, ...]
    """known_hosts files; the first of the user's own, if there is one, gets new keys"""
    own_files: int
    """how many of the files, from the first on, are the user's own"""
    alias: str | None = None
    """HostKeyAlias"""
    hashed: bool = False
    """HashKnownHosts"""
    by_hand: str | None = None
    """the `ssh` command to connect by hand, where ssh-keyscan can't get there or would write another name"""

    @property
    def name(self) -> str:
        """What it is called in known_hosts files."""
        if self.alias is not None:
            return self.alias
        host = self.host.lower()
        return host if self.port == 22 else f"[{host}]:{self.port}"


def peer(where: str, host: str, port: int, settings: Mapping[str, str], by_hand: str | None) -> Peer:
    """A host with what the ssh configuration says of it (keys in lower case)."""
    own = _files(settings.get("userknownhostsfile", USER_FILES))
    system = _files(settings.get("globalknownhostsfile", SYSTEM_FILES))
    alias = settings.get("hostkeyalias")
    hashed = settings.get("hashknownhosts", "no").lower() == "yes"
    return Peer(where, host, port, (*own, *system), len(own), alias, hashed, by_hand)


def _files(setting: str) -> tuple[Path, ...]:
    home = os.path.expanduser("~")
    names = [name.replace("%d", home) for name in shlex.split(setting)]
    return tuple(Path(os.path.expanduser(name)) for name in names if name.lower() != "none")


def known_kinds(peer: Peer) -> list[str]:
    """The types of the keys that are known for a host: the ones it should be asked for first."""
    found = [entry.kind for entry in entries_of(peer) if not entry.marker]
    return list(dict.fromkeys(found))


def verify(peer: Peer, key: bytes, *, accept_new: bool) -> None:
    """Return if `key` (as it is sent: type and values) is the known key of the host.

    With `accept_new`, the key of a host of which no key is known is added to the user's known_hosts file, and told by a
    warning in the log. Raises SourceError for every other key, with how to settle it.
    """
    entries = list(entries_of(peer))
    mark = fingerprint(key)
    told = f"{mark} ({_kind(key)})"
    revoked = [entry for entry in entries if entry.marker == "@revoked" and entry.key == key]
    if revoked:
        raise SourceError(
            f"{peer.where}: its host key {told} is revoked in {revoked[0].place}: whoever answers there is not to be "
            "trusted. Ask those who run the host which key it has now."
        )
    plain = [entry for entry in entries if not entry.marker]
    if any(entry.key == key for entry in plain):
        return
    # ssh too takes a key that is known for the name without the port.
    if any(entry.key == key for entry in entries_of(peer, peer.host.lower()) if not entry.marker):
        return
    if plain:
        raise SourceError(_changed(peer, told, plain))
    if not accept_new:
        raise SourceError(_unknown(peer, told, entries))
    _add(peer, key)
    log.warning("%s: its host key %s is new and from now on known, in %s", peer.where, told, shown_path(peer.files[0]))


def _changed(peer: Peer, told: str, entries: Sequence[Entry]) -> str:
    lines = ", ".join(f"{entry.place} ({fingerprint(entry.key)}, {entry.kind})" for entry in entries)
    removal = [f"ssh-keygen -f {shown_path(file)} -R {shlex.quote(peer.name)}" for file in {e.file: 0 for e in entries}]
    return (
        f"{peer.where}: its host key CHANGED: it is now {told}, known is {lines}. Somebody may be listening in "
        "between, or the host was installed anew. Ask those who run it; if the new key is right, replace the old one:\n"
        + "".join(f"    {command}\n" for command in removal)
        + f"    {addition(peer)}"
    )


def _unknown(peer: Peer, told: str, entries: Sequence[Entry]) -> str:
    authority = next((entry for entry in entries if entry.marker == "@cert-authority"), None)
    extra = ""
    if authority is not None:
        extra = f" {authority.place} names an authority that signs its key, which hsm can't check: add the key itself."
    return (
        f"{peer.where}: its host key is not known: {told}.{extra} Ask those who run the host for the fingerprint of "
        f"its key (there: ssh-keygen -lf /etc/ssh/ssh_host_{_file_kind(told)}_key.pub); if it is the same, add it:\n"
        f"    {addition(peer)}\n"
        "or take whatever key comes first: host_key_policy: accept_new"
    )


def addition(peer: Peer) -> str:
    """The command that makes the key known."""
    if peer.by_hand is not None:
        return f"{peer.by_hand}      # shows the same fingerprint and asks"
    file = shown_path(peer.files[0]) if peer.own_files else "~/.ssh/known_hosts"
    port = "" if peer.port == 22 else f"-p {peer.port} "
    return f"ssh-keyscan {port}{shlex.quote(peer.host)} >> {file}"


def _file_kind(told: str) -> str:
    return next((kind for kind in ("ed25519", "ecdsa") if kind in told), "rsa")


def _add(peer: Peer, key: bytes) -> None:
    """Write a key down as ssh does."""
    if peer.own_files == 0:
        raise SourceError(
            f"{peer.where}: its host key is new, and the ssh configuration names no file where it could be written "
            "down (UserKnownHostsFile none)"
        )
    file = peer.files[0]
    name = _hashed(peer.name) if peer.hashed else peer.name
    line = f"{name} {_kind(key)} {base64.b64encode(key).decode()}\n".encode()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            unended = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" + line if unended else line)
        finally:
            os.close(descriptor)
    except OSError as e:
        raise SourceError(f"{peer.where}: its host key is new and can't be written down: {e}") from e


def fingerprint(key: bytes) -> str:
    """As ssh shows it: `SHA256:` and the hash in base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _kind(key: bytes) -> str:
    """The type of a key, which stands in front of its values (RFC 4253, 6.6)."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", "replace")


def entries_of(peer: Peer, name: str | None = None) -> Iterator[Entry]:
    """The entries of all files that are about a host, or one of its names."""
    for file in peer.files:
        for entry in read(file):
            if fits(entry.names, name or peer.name):
                yield entry


def read(file: Path) -> Iterator[Entry]:
    """The entries of a known_hosts file. Lines that are none are left out, and so is a file that is not there.

    Raises SourceError where the file can't be read.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise SourceError(f"{shown_path(file)} can't be read, so no host key can be checked: {e.strerror}") from e
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield Entry(file, number, marker, words[0], key)


def fits(names: str, name: str) -> bool:
    """Whether the first word of a known_hosts line means the host `name`."""
    if names.startswith("|1|"):
        salt = names.split("|")[2]
        return hmac.compare_digest(names.encode(errors="replace"), _hashed(name, salt).encode(errors="replace"))
    found = False
    for pattern in names.lower().split(","):
        negated = pattern.startswith("!")
        wanted = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(wanted, name.lower()):
            if negated:
                return False
            found = True
    return found


def _hashed(name: str, salt: str | None = None) -> str:
    """A name as it is hidden in known_hosts: `|1|salt|hash`, HMAC-SHA1 keyed with the salt."""
    try:
        secret = os.urandom(20) if salt is None else base64.b64decode(salt, validate=True)
    except (binascii.Error, ValueError):
        return ""
    digest = hmac.digest(secret, name.encode(errors="surrogateescape"), "sha1")
    return f"|1|{base64.b64encode(secret).decode()}|{base64.b64encode(digest).decode()}"


def shown_path(path: Path) -> str:
    """A path as a shell takes it, short where it is in the user's home."""
    home = os.path.expanduser("~")
    text = str(path)
    if text.startswith(f"{home}/") and shlex.quote(text[len(home) :]) == text[len(home) :]:
        return "~" + text[len(home) :]
    return shlex.quote(text)
