"""Hosts with a line of their own that can be cut, silenced and slowed down: each in a network namespace.

The line is a pair of interfaces with addresses from 198.18.0.0/15, which is for tests of networks only (RFC 2544).
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.testbed.sshd import ClientKey, SshHost, need

NOWHERE = "02:00:00:00:00:01"
"""hardware address that nobody has"""


class NetnsHost(SshHost):
    """An `SshHost` at the other end of a line."""

    def __init__(self, key: ClientKey, settings: Mapping[str, str] | None = None, **options: Any) -> None:
        need(["ip", "tc"], "a host with a line of its own")
        second, third, fourth = random.randint(18, 19), random.randint(0, 255), 4 * random.randint(0, 63)
        self.near_address = f"198.{second}.{third}.{fourth + 1}"
        super().__init__(key, settings, address=f"198.{second}.{third}.{fourth + 2}", **options)
        self._before = ("ip", "netns", "exec", self.user)
        self._near, self._far = f"{self.user}n", f"{self.user}f"

    def __enter__(self) -> NetnsHost:
        try:
            _run("ip", "netns", "add", self.user)
            _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.user)
            _run("ip", "addr", "add", f"{self.near_address}/30", "dev", self._near)
            _run("ip", "-n", self.user, "addr", "add", f"{self.address}/30", "dev", self._far)
            _run("ip", "link", "set", self._near, "up")
            _run("ip", "-n", self.user, "link", "set", self._far, "up")
            super().__enter__()
        except BaseException:
            remove_line(self.user)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        remove_line(self.user)

    def partition(self) -> None:
        """The line is cut at the host's end; ours finds that nobody answers any more."""
        # At our end the route would go with the link, and what is meant for the host would go elsewhere.
        _run("ip", "-n", self.user, "link", "set", self._far, "down")

    def blackhole(self) -> None:
        """The line is up, and swallows whatever is sent over it."""
        _run("ip", "neigh", "replace", self.address, "lladdr", NOWHERE, "dev", self._near, "nud", "permanent")
        far = ("neigh", "replace", self.near_address, "lladdr", NOWHERE, "dev", self._far, "nud", "permanent")
        _run("ip", "-n", self.user, *far)

    def slow(self, kbit: int) -> None:
        """The line carries so much in each direction and no more."""
        limit = ("root", "tbf", "rate", f"{kbit}kbit", "burst", "4kb", "latency", "1s")
        _run("tc", "qdisc", "replace", "dev", self._near, *limit)
        _run("tc", "-n", self.user, "qdisc", "replace", "dev", self._far, *limit)

    def heal(self) -> None:
        """The line is as it was at first."""
        _run("ip", "-n", self.user, "link", "set", self._far, "up")
        for command in (
            ("ip", "neigh", "del", self.address, "dev", self._near),
            ("ip", "-n", self.user, "neigh", "del", self.near_address, "dev", self._far),
            ("tc", "qdisc", "del", "dev", self._near, "root"),
            ("tc", "-n", self.user, "qdisc", "del", "dev", self._far, "root"),
        ):
            with contextlib.suppress(subprocess.CalledProcessError):  # of what was not changed
                _run(*command)


def remove_line(user: str) -> None:
    """Remove the line of the host with that user, if it has one."""
    for command in (("ip", "link", "del", f"{user}n"), ("ip", "netns", "del", user)):
        with contextlib.suppress(subprocess.CalledProcessError):  # where it was not made, or went with the other
            _run(*command)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
