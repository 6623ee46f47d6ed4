"""One login on a host: a chain of connections that lead there, and the channels in it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import paramiko

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.ssh.route import LOG_CHANNEL, Hop
from hsm_core.text import printable

log = logging.getLogger(__name__)

CHANNELS = 7
"""channels of one login; sshd allows ten (MaxSessions) unless told otherwise"""
CHANNEL_TIMEOUT = 30.0
"""seconds until a new channel is open"""
QUIET = 15
"""seconds without a word from the host until it is asked for one"""
SILENCE = 40
"""seconds without a word after which the connection is given up"""
LAST_STEPS = 2.0
"""seconds that the thread of a connection has to end"""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux alone has it"""


class Login:
    """Connections along a route, each inside the one before; the last one's channels are what it is for."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = hops
        self.where = hops[-1].where
        self._line: Heard | None = None
        self._proxy: Proxy | None = None
        self._lock = threading.Lock()
        self._channels: list[paramiko.Channel] = []
        self._opening = 0
        self._used = False
        self.room = CHANNELS
        """channels it takes at a time, as far as is known"""
        self._closed = threading.Event()
        paramiko_log = logging.getLogger(LOG_CHANNEL)
        if paramiko_log.level == logging.NOTSET:
            paramiko_log.setLevel(logging.CRITICAL)

    @property
    def active(self) -> bool:
        transport = self._hops[-1].link.client.get_transport()
        return transport is not None and transport.is_active() and transport.is_authenticated()

    def open(self, deadline: float) -> None:
        """Connect and log in, until `deadline` (of `time.monotonic`).

        Raises Dropped where a host hung up before it said which key it has, Unavailable where one can't be reached,
        SourceError where somebody has to do something. Then all is closed again.
        """
        try:
            for before, hop in zip([None, *self._hops], self._hops, strict=False):
                self._open_hop(before, hop, deadline)
        except BaseException:
            self.close()
            raise
        watch = threading.Thread(target=self._watch, name="hsm-ssh-watch", daemon=True)
        watch.start()

    def _open_hop(self, before: Hop | None, hop: Hop, deadline: float) -> None:
        seconds = max(0.1, deadline - time.monotonic())
        with self._in_words(hop, deadline):
            line = self._line = Heard(self._dial(before, hop, seconds))
            hop.reached(hop.where, "connect", "")
            seconds = max(0.1, deadline - time.monotonic())
            hop.link.connect_timeout = seconds
            hop.link.connect_kwargs.update(sock=line, banner_timeout=seconds, auth_timeout=seconds)
            if self._closed.is_set():
                raise EOFError("closed by us")
            hop.link.open()

    def _dial(self, before: Hop | None, hop: Hop, seconds: float) -> Any:
        """Something like a socket to a host: through the hop before, by its ProxyCommand, or straight."""
        if before is not None:
            transport = before.link.transport
            return transport.open_channel("direct-tcpip", (hop.link.host, hop.link.port), ("", 0), timeout=seconds)
        command = hop.settings.get("proxycommand")
        if command is not None:
            self._proxy = Proxy(command)
            return self._proxy.socket
        return self._connect(hop.link.host, hop.link.port, time.monotonic() + seconds)

    def _connect(self, host: str, port: int, deadline: float) -> socket.socket:
        """The first of a host's addresses that answers. Raises what the last one did instead, an OSError."""
        failed = OSError("it has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connecting = socket.socket(family, kind, protocol)
            try:
                connecting.setblocking(False)
                connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                code = connecting.connect_ex(address)
                connected = select.poll()
                connected.register(connecting, select.POLLOUT)
                # In short steps: `close` may be called meanwhile.
                while code == errno.EINPROGRESS and not connected.poll(100):
                    if self._closed.is_set() or time.monotonic() > deadline:
                        code = errno.ETIMEDOUT
                code = code if code != errno.EINPROGRESS else connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return connecting
                raise OSError(code, os.strerror(code))
            except OSError as e:
                connecting.close()
                failed = e
        raise failed

    @contextlib.contextmanager
    def _in_words(self, hop: Hop, deadline: float) -> Iterator[None]:
        """Errors on the way to a host become ours, in words."""
        where, began = hop.where, time.monotonic()
        try:
            yield
        except SourceError:
            raise
        except socket.gaierror as e:
            raise Unavailable(f"{where}: the name {hop.link.host} is not known ({e.strerror}); is `host` right?") from e
        except UnicodeError as e:
            raise SourceError(f"{where}: that is no name of a host: {e}") from e
        except ConnectionRefusedError as e:
            raise Unavailable(f"{where}: nothing listens there; is sshd running, is `port` right?") from e
        except TimeoutError as e:
            raise Unavailable(f"{where}: no answer within {time.monotonic() - began:.1f} s") from e
        except paramiko.ChannelException as e:
            raise Unavailable(f"{where}: the jump host does not get there: {e.text}") from e
        except paramiko.ssh_exception.IncompatiblePeer as e:
            raise SourceError(f"{where}: it has no algorithm in common with ours, it may be too old: {e}") from e
        except (paramiko.SSHException, EOFError) as e:
            said = "" if self._proxy is None else self._proxy.said()
            if said:
                raise Unavailable(f"{where}: its ProxyCommand said: {printable(said, 300)}") from e
            # paramiko says the same of one who hung up and one who says nothing.
            if time.monotonic() >= deadline - 0.1 and not (self._line and self._line.ended):
                raise Unavailable(
                    f"{where}: no answer within {time.monotonic() - began:.1f} s ({printable(str(e))})"
                ) from e
            raise Dropped(f"{where}: it hung up before the login ({printable(str(e)) or 'end of data'})") from e
        except OSError as e:
            raise Unavailable(f"{where}: it can't be reached: {e.strerror or e}") from e

    def channel(self) -> paramiko.Channel | None:
        """A new channel; None where there is no room for one, or the host refuses it.

        Raises Unavailable when the connection is lost, or where the host refuses the very first channel.
        """
        with self._lock:
            taken = self._taken()
            if taken >= self.room:
                return None
            self._opening += 1
        try:
            channel = self._hops[-1].link.transport.open_session(timeout=CHANNEL_TIMEOUT)
        except paramiko.ChannelException as e:
            if not self._used:
                raise Unavailable(f"{self.where}: it lets us log in, but run nothing: {e.text}") from e
            self.room = max(1, taken)
            return None
        except (paramiko.SSHException, EOFError, OSError) as e:
            raise Unavailable(f"{self.where}: the connection is lost: {e}") from e
        else:
            with self._lock:
                self._channels.append(channel)
                self._used = True
            return channel
        finally:
            with self._lock:
                self._opening -= 1

    def _taken(self) -> int:
        self._channels = [channel for channel in self._channels if not channel.closed]
        return len(self._channels) + self._opening

    @property
    def idle(self) -> bool:
        """Whether nothing runs over it."""
        with self._lock:
            return self._taken() == 0

    def _watch(self) -> None:
        """Give the connection up once nothing at all is heard of the host, however it is reached.

        TCP alone notices that after a quarter of an hour, and behind a jump host not at all. Seconds are counted, not
        measured: while this process is stopped, none pass.
        """
        assert self._line is not None
        transport = self._hops[-1].link.transport
        quiet, heard = 0, -1
        while not self._closed.wait(1.0) and transport.is_active():
            if heard != self._line.heard:
                quiet, heard = 0, self._line.heard
                continue
            quiet += 1
            if quiet % QUIET == 0:
                threading.Thread(target=_ask, args=(transport,), name="hsm-ssh-ask", daemon=True).start()
            if quiet == SILENCE:
                log.warning("%s: nothing was heard of it for %d s; the connection is given up", self.where, SILENCE)
                self.close()

    def close(self) -> None:
        """Close everything, from the host back; idempotent."""
        self._closed.set()
        if self._line is not None:
            self._line.wake()
        transports = [hop.link.client.get_transport() for hop in reversed(self._hops)]
        for hop in reversed(self._hops):
            hop.link.client.close()
        if self._line is not None:
            self._line.close()
        if self._proxy is not None:
            self._proxy.close()
        for transport in transports:
            if transport is not None:
                transport.join(LAST_STEPS)


def _ask(transport: paramiko.Transport) -> None:
    """Make the host say something; returns once it did, or the connection has ended."""
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # then it has ended
        # Every server answers this, if only that it does not know it (RFC 4254, 4).
        transport.global_request("keepalive@openssh.com", wait=True)


class Dropped(Unavailable):
    """A host hung up before the login began: as sshd does when too many do so at a time (MaxStartups)."""


class Heard:
    """A socket that counts how often something came, and knows whether the other end has hung up."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._is_tcp = isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX
        self.heard = 0
        self.ended = False

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = self._sock.recv(size)
        except TimeoutError:
            raise
        except OSError:
            self.ended = True
            raise
        if self._is_tcp and _QUICKACK is not None:
            # It lasts for a few packets only, see tcp(7). sshd does not set TCP_NODELAY: what it says next would wait
            # up to 40 ms until it knows that this has arrived.
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        self.heard += 1
        self.ended = not data
        return data

    def wake(self) -> None:
        """End whatever waits in `recv`, which would look up after a tenth of a second only."""
        if isinstance(self._sock, socket.socket):
            with contextlib.suppress(OSError):  # the other end has hung up
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # To close a channel of a jump host takes a word to that, which may be lost itself.
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Proxy:
    """A ProxyCommand: what it reads and writes is the connection.

    paramiko's own takes no shell's words, never empties standard error, and spins at the end of the program.
    """

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the program
        with theirs:
            # It is the user's own, for a shell (ssh_config(5)). In a session of its own, Ctrl-C does not end it.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors.fileno(),
                start_new_session=True,
            )

    def said(self) -> str:
        """What it told on standard error."""
        if self._errors.closed:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()

    def close(self) -> None:
        self.socket.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()
