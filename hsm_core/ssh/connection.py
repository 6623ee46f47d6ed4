"""The connection to one host: one login for everything, more only where the host wants that."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh.program import START, Program

if TYPE_CHECKING:
    import paramiko

    from hsm_core.ssh.identities import Identities
    from hsm_core.ssh.login import Login
    from hsm_core.ssh.route import Reached

LOGINS = 8
"""logins on a host that allows few channels in one"""
BUSY = 60.0
"""seconds to wait for a free channel"""
SFTP_SERVERS = tuple(
    f"/usr/{folder}/sftp-server" for folder in ("lib/openssh", "libexec/openssh", "libexec", "lib/ssh", "lib/misc")
)
"""where Debian, Red Hat, BSD and macOS, Arch and Alpine, and Gentoo have it"""


def _nobody(where: str, step: str, told: str) -> None:
    """Nobody wants to know how far it went."""


class Connection:
    """All that goes to one host. Threads may share it."""

    def __init__(self, name: str, config: SourceConfig, *, compress: bool = False, reached: Reached = _nobody) -> None:
        """`reached` hears how far it went each time that we log in."""
        self._name = name
        self._config = config
        self._compress = compress
        self._reached = reached
        self._identities: Identities | None = None
        self._opening = threading.RLock()
        """held by the one who logs in"""
        self._lock = threading.Lock()
        """of the list, and of whether it is closed"""
        self._closed = False
        self._logins: list[Login] = []
        self._address: str | None = None

    @property
    def alive(self) -> bool:
        """Whether something can be run, as far as is known."""
        return any(login.active for login in self._logins)

    @property
    def address(self) -> str:
        """`user@host:port` for people; before the first `open`, as it was configured."""
        return self._address or f"{self._config.host or self._name}"

    @property
    def _where(self) -> str:
        return f"{self._name} ({self.address})"

    def open(self, timeout: float = 10.0) -> None:
        """Connect and log in, if that is not so already; returns once commands can be run.

        `timeout` are seconds for all of it; ConnectTimeout in the ssh configuration wins. Raises Unavailable where
        the host can't be reached now, and SourceError where somebody has to do something: an unknown or changed host
        key, no key that it takes, a faulty ssh configuration.
        """
        with self._opening:
            if not self.alive:
                self._log_in(timeout)

    def _log_in(self, timeout: float) -> None:
        # They take 0.3 s, which is nothing to spend while sources are only looked for.
        from hsm_core.ssh.identities import Identities
        from hsm_core.ssh.login import Dropped, Login
        from hsm_core.ssh.route import route

        if self._identities is None:
            self._identities = Identities(self._config.ssh_key)
        with self._lock:
            lost = [login for login in self._logins if not login.active]
            self._logins = [login for login in self._logins if login not in lost]
        for login in lost:
            login.close()
        pause, began = 0.1, time.monotonic()
        dropped: Login | None = None
        while True:
            hops = route(self._name, self._config, self._identities, self._compress, self._reached)
            self._address = hops[-1].address
            configured = str(hops[-1].settings.get("connecttimeout", ""))
            deadline = began + (float(configured) if configured.isdigit() else timeout)
            login = Login(hops)
            with self._lock:
                if self._closed:
                    raise Unavailable(f"{self._where}: the connection was closed")
                if dropped is not None:
                    self._logins.remove(dropped)
                self._logins.append(login)
            try:
                login.open(deadline)
                return
            except Dropped as e:
                if time.monotonic() + pause > deadline:
                    raise Unavailable(f"{e}; it may allow few logins at a time (MaxStartups)") from e
            dropped = login
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 2.0)

    def run(self, script: str) -> Program:
        """Start a POSIX shell script there, in a channel of its own; returns once it runs.

        The script is not seen in a list of processes, and may hold any text but NUL characters. Raises Unavailable when
        the connection is lost or not open, or the login shell there does not come to the script.
        """
        program = Program(self._channel(), self._where)
        program.start(script)
        return program

    def sftp(self) -> paramiko.SFTPClient:
        """A session to transfer files; it takes a channel until it is closed. Raises Unavailable as `run` does."""
        import paramiko

        channel = self._channel()
        try:
            channel.invoke_subsystem("sftp")
            return _sftp(channel)
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError):
            channel.close()
        # The subsystem is not to be had, or what the profile prints comes in between; a program of ours knows better.
        channel = self.run("".join(f"test -x {path} && exec {path}\n" for path in SFTP_SERVERS)).channel
        try:
            return _sftp(channel)
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as e:
            channel.close()
            raise Unavailable(f"{self._where}: no files can be transferred by SFTP; is sftp-server there?") from e

    def _channel(self) -> paramiko.Channel:
        """A channel in one of the logins, or in a new one where the host allows no more in those there are."""
        from hsm_core.ssh.login import CHANNELS

        began = time.monotonic()
        while True:
            logins = [login for login in self._logins if login.active]
            if not logins:
                raise Unavailable(f"{self._where}: not connected")
            for login in logins:
                channel = login.channel()
                if channel is not None:
                    return channel
            waited = time.monotonic() - began
            # A host counts what has ended for a moment still.
            patience = 1.0 if any(login.idle for login in logins) else 0.0
            if all(login.room < CHANNELS for login in logins) and len(logins) < LOGINS and waited >= patience:
                self._log_in_again(len(logins))
            elif waited > BUSY:
                raise Unavailable(f"{self._where}: all channels have been busy for {BUSY:g} s")
            else:
                time.sleep(0.05)

    def _log_in_again(self, have: int) -> None:
        """One login more, unless another thread came first."""
        with self._opening:
            if sum(login.active for login in self._logins) > have:
                return
            try:
                self._log_in(10.0)
            except Unavailable:
                raise
            except SourceError as e:
                raise Unavailable(str(e)) from e

    def close(self) -> None:
        """Hang up for good; idempotent. Every program that runs over it has a lost connection then."""
        with self._lock:
            self._closed = True
            logins, self._logins = self._logins, []
        for login in logins:
            login.close()


def _sftp(channel: paramiko.Channel) -> paramiko.SFTPClient:
    """A session over a channel on whose other end sftp-server runs."""
    import paramiko

    channel.settimeout(START)
    client = paramiko.SFTPClient(channel)
    channel.settimeout(None)
    return client
