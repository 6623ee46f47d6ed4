"""Logging in with keys, in the order of `identities`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.auth_strategy import AuthStrategy

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh.identities import Identities
from hsm_core.text import printable


class Authentication(AuthStrategy):  # type: ignore[misc]
    """What fabric asks to log in; nothing but keys is ever offered."""

    def __init__(
        self,
        where: str,
        identities: Identities,
        reached: Callable[[str, str, str], None],
        *,
        ssh_config: Any,
        fabric_config: Any,
        username: str,
    ) -> None:
        super().__init__(ssh_config)
        self._where = where
        self._identities = identities
        self._reached = reached
        self._user = username

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in. Raises SourceError where the host takes none of our keys, Unavailable where it is lost meanwhile."""
        tried: list[str] = []
        allowed = "publickey"
        for key in self._identities.offered(self._where, self.ssh_config, tried):
            try:
                rest = transport.auth_publickey(self._user, key)
            except paramiko.BadAuthenticationType as e:
                allowed = printable(", ".join(e.allowed_types), 300)
                break
            except paramiko.AuthenticationException as e:
                if "timeout" in str(e):
                    raise Unavailable(f"{self._where}: no answer while logging in") from e
                if not transport.is_active():
                    raise self._dropped(tried, e) from e
                continue
            except (paramiko.SSHException, EOFError, OSError) as e:
                raise self._dropped(tried, e) from e
            if transport.is_authenticated():
                self._reached(self._where, "log in", tried[-1])
                return
            raise SourceError(
                f"{self._where}: it took the key {tried[-1]}, but wants {printable(' or '.join(rest), 300)} as well, "
                "which hsm can't give. Ask those who run the host for a way to log in with a key alone"
            )
        banner = (transport.get_banner() or b"").decode(errors="replace").strip()
        said = f". It says: {printable(banner, 300)}" if banner else ""
        raise SourceError(f"{self._where}: {_refusal(tried, allowed)}{said}")

    def _dropped(self, tried: list[str], error: Exception) -> SourceError:
        if len(tried) > 1:
            return SourceError(
                f"{self._where}: it ended the connection after {len(tried)} keys ({'; '.join(tried)}): it may allow no "
                "more tries. Name the right key with ssh_key, or set IdentitiesOnly and IdentityFile in ~/.ssh/config"
            )
        return Unavailable(f"{self._where}: the connection was lost while logging in: {error}")


def _refusal(tried: list[str], allowed: str) -> str:
    if "publickey" not in allowed:
        return f"it lets nobody log in with a key, only with {allowed}"
    if not tried:
        return (
            "there is no key to log in with: no agent has one and ~/.ssh holds none. Make one with ssh-keygen and have "
            "it taken there by ssh-copy-id, or name one with ssh_key"
        )
    return (
        f"it takes none of our keys: {'; '.join(tried)}. Add one of them there with ssh-copy-id, name another with "
        "ssh_key, or look whether the user is right"
    )
