"""The agent of one pilot, as the launcher sees it: reached through the pilot's gate."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from hsm_core.config import SourceConfig
from hsm_core.events import SourceDown, SourceUp
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote import gate
from hsm_core.sources.agent import AgentSource
from hsm_core.sources.hpc.pilot_jobs import Address
from hsm_core.sources.remote_line import RemoteLine
from hsm_core.task import Attempt

CONNECT = 5.0
"""seconds that one of a machine's names has to answer"""
TRIES = 5
"""tries to reach a pilot for the first time"""
PAUSE = 1.0
"""seconds between them"""


class PilotAgent(AgentSource):
    """What it has to say of itself it posts as the source would; `final` words of it mean this pilot alone.

    Where it is over, nobody knows yet what of it still runs: it keeps its attempts until `gone` is called.
    """

    type = "hpc"
    outlives_launcher = True

    def __init__(self, name: str, config: SourceConfig, slots: int, pilot: str, address: Callable[[], Address]) -> None:
        super().__init__(name, config, slots)
        self._pilot = pilot
        self._address = address
        self._over = threading.Event()

    def _open(self) -> RemoteLine:
        line = RemoteLine(self._reach, self._sweep.epoch, self._on_down, self._on_up)
        for _ in range(TRIES - 1):
            with contextlib.suppress(Unavailable):
                line.open()
                return line
            if self._over.wait(PAUSE):
                break
        line.open()
        return line

    def _reach(self) -> Passage:
        try:
            address = self._address()
        except OSError as e:
            raise SourceError(f"{self.name}: pilot {self._pilot} is gone") from e
        return enter(address)

    def _on_down(self, why: str) -> None:
        self._post(SourceDown(self.name, f"{self.name}: a pilot can't be reached: {why}. Its tasks go on there."))

    def _on_up(self) -> None:
        self._post(SourceUp(self.name))

    def _fence(self) -> None:
        """Its job is waited for."""

    def _recover(self) -> None:
        fault = self._line.fault if isinstance(self._line, RemoteLine) else None
        self._post(SourceDown(self.name, fault or self._end_of_agent(), final=True))

    @property
    def _log(self) -> str:
        return str(self._sweep.directory / ".hsm" / "agents" / f"{self.name}-{self._pilot}.log")

    @property
    def useless(self) -> bool:
        """Whether it said that the app can't run there, as any other pilot would."""
        return self._useless

    def attach(self, attempts: Sequence[Attempt]) -> None:
        self._ask_for(attempts)

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """The output directories are in the sweep directory from the start."""

    def give_up(self, attempts: Sequence[Attempt]) -> None:
        """Hear no more of these."""
        with self._lock:
            for attempt in attempts:
                self._active.pop(attempt.id, None)

    @property
    def active(self) -> int:
        """How many attempts it has."""
        with self._lock:
            return len(self._active)

    def gone(self, why: str) -> None:
        """Settle what it had, by what is here of it: its job has ended, and nothing of it runs any more."""
        self._stopping = True
        self._over.set()
        if self._line is not None:
            self._line.close()
        with self._lock:
            orphans, self._active = list(self._active.values()), {}
        self._bury(orphans, why)

    def leave(self, timeout: float = 10.0) -> None:
        self._stopping = True
        self._over.set()
        if self._line is not None:
            self._hang_up(0.0)


class Passage:
    """A connection through a gate to its agent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._events = connection.makefile("rb")
        self._dismissed = False

    @property
    def stdin(self) -> Passage:
        return self

    @property
    def stdout(self) -> Passage:
        return self

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def readline(self, limit: int) -> bytes:
        try:
            line = self._events.readline(limit)
        except (OSError, ValueError):  # the latter where it was closed meanwhile
            return b""
        self._dismissed = line == gate.BYE
        return b"" if self._dismissed else line

    def errors(self) -> str:
        return ""

    def wait(self, timeout: float) -> int:
        if not self._dismissed:
            raise Unavailable("the connection was lost")
        return 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes who reads
        self._events.close()
        self._connection.close()


def enter(address: Address) -> Passage:
    """Go through a gate. Raises Unavailable where none of its machine's names leads to it."""
    failed = []
    for name in address.names:
        try:
            connection = socket.create_connection((name, address.port), CONNECT)
            try:
                gate.knock(connection, address.secret)
            except BaseException:
                connection.close()
                raise
            return Passage(connection)
        except (OSError, gate.Stranger) as e:
            failed.append(f"{name}, port {address.port}: {getattr(e, 'strerror', None) or e}")
    raise Unavailable("; ".join(failed))
