"""The way to a host: the host itself, and those that one has to jump over to get there."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fabric
import paramiko

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.ssh import ssh_config
from hsm_core.ssh.authentication import Authentication
from hsm_core.ssh.host_keys import Peer, fingerprint, known_kinds, peer, verify
from hsm_core.ssh.identities import Identities

_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]/]+)(?::(?P<port>\d+))?/?")
"""one hop of ProxyJump: [user@]host[:port], or a URI"""


Reached = Callable[[str, str, str], None]
"""Hears how far it went on the way to a host: which hop (`where`), `connect`, `host key` or `log in`, and the
fingerprint or key that it is done with"""


@dataclass(frozen=True)
class Hop:
    """One host on the way, not connected yet."""

    name: str
    """as it was given: perhaps an alias"""
    where: str
    """for messages"""
    link: fabric.Connection
    peer: Peer
    reached: Reached

    @property
    def settings(self) -> Any:
        """What the ssh configuration says of it."""
        return self.link.ssh_config

    @property
    def address(self) -> str:
        return address(self.link)


def address(link: fabric.Connection) -> str:
    """`user@host:port`"""
    host = f"[{link.host}]" if ":" in link.host else link.host
    return f"{link.user}@{host}:{link.port}"


def destination(name: str, config: SourceConfig) -> tuple[str | None, str]:
    """User, if one is named, and host of a source."""
    user, at, host = (config.host or name).rpartition("@")
    return (user if at else config.user), host.strip("[]")


def route(name: str, config: SourceConfig, identities: Identities, compress: bool, reached: Reached) -> list[Hop]:
    """The hops to a source's host, which is the last one, by its configuration and the user's ssh configuration.

    Raises SourceError where these can't be understood.
    """
    user, host = destination(name, config)
    accept_new = config.host_key_policy == "accept_new"
    last = _hop(name, host, user, config.port, identities, accept_new, reached)
    last.link.connect_kwargs["compress"] = compress or last.settings.get("compression", "no").lower() == "yes"
    return [*_before(name, last, [last.address], accept_new), last]


def _before(name: str, hop: Hop, passed: Sequence[str], accept_new: bool) -> list[Hop]:
    """The hops in front of one, by its ProxyJump: the first one named is reached first (ssh_config(5)).

    fabric's own way goes through them backwards, so it is not used.
    """
    named = hop.settings.get("proxyjump") or "none"
    if named.lower() == "none":
        return []
    hops = []
    for text in named.split(","):
        found = _JUMP.fullmatch(text.strip())
        if found is None:
            raise SourceError(f"{hop.where}: '{text.strip()}' in its ProxyJump is no host")
        port = None if found["port"] is None else int(found["port"])
        host = found["host"].strip("[]")
        hops.append(_hop(f"{name}, jump host", host, found["user"], port, Identities(None), accept_new, hop.reached))
    if any(jump.address == hop.address for jump in hops):
        return []  # as in ssh: `Host *` with ProxyJump means all but the jump host itself
    first = hops[0].address
    if first in passed:
        raise SourceError(f"{hop.where}: the jump hosts in the ssh configuration lead in a circle, at {first}")
    return [*_before(name, hops[0], [*passed, first], accept_new), *hops]


def _hop(
    name: str,
    host: str,
    user: str | None,
    port: int | None,
    identities: Identities,
    accept_new: bool,
    reached: Reached,
) -> Hop:
    try:
        settings = fabric.Config(lazy=True, ssh_config=ssh_config.load(host, user, port))
        # gateway and agent forwarding: what fabric would make of the ssh configuration by itself is kept out.
        link = fabric.Connection(
            host,
            config=settings,
            gateway=False,
            forward_agent=False,
            connect_timeout=1,
            connect_kwargs={"compress": False},
        )
    except (ValueError, KeyError, OSError, paramiko.SSHException) as e:
        raise SourceError(f"{name}: the ssh configuration for {host} can't be used: {e}") from e
    where = f"{name} ({address(link)})"
    found = link.ssh_config
    # ssh-keyscan neither jumps nor knows aliases.
    simple = not (found.get("proxyjump") or found.get("proxycommand") or found.get("hostkeyalias"))
    target = host if user is None else f"{user}@{host}"
    by_hand = None if simple else f"ssh {'' if port is None else f'-p {port} '}{shlex.quote(target)}"
    known = peer(where, link.host, link.port, found, by_hand)
    # fabric takes any key of a host unless told otherwise. No key is known to it, so all are put to this policy.
    link.client.set_missing_host_key_policy(_Known(known, accept_new, reached))
    link.client.set_log_channel(LOG_CHANNEL)
    link.connect_kwargs["transport_factory"] = functools.partial(_transport, known_kinds(known))
    settings.authentication.strategy_class = functools.partial(Authentication, where, identities, reached)
    return Hop(host, where, link, known, reached)


LOG_CHANNEL = "hsm_core.ssh.paramiko"
"""paramiko's own log of our connections; what goes wrong in them is raised by us"""


class _Known(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    def __init__(self, host: Peer, accept_new: bool, reached: Reached) -> None:
        self._host = host
        self._accept_new = accept_new
        self._reached = reached

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        verify(self._host, key.asbytes(), accept_new=self._accept_new)
        self._reached(self._host.where, "host key", f"{fingerprint(key.asbytes())} ({key.get_name()})")


def _transport(known: Sequence[str], sock: Any, **options: Any) -> paramiko.Transport:
    """A transport that asks for the kinds of host key first that are known."""
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    wanted = [algorithm for kind in known for algorithm in _algorithms(kind) if algorithm in security.key_types]
    security.key_types = list(dict.fromkeys([*wanted, *security.key_types]))
    return transport


def _algorithms(kind: str) -> tuple[str, ...]:
    """The signatures that a kind of key can make."""
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
