"""The launcher's end of the line to an agent."""

from __future__ import annotations

import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import IO, Any

from hsm_core.remote.lines import LINE_LIMIT


class Line(ABC):
    """The line to one agent. `send` may be called from any thread, `hear` from one."""

    @abstractmethod
    def send(self, request: Mapping[str, Any]) -> None:
        """Hand a request to the agent, at once; that it is gone is noticed by who hears it."""

    @abstractmethod
    def hear(self) -> bytes:
        """Wait for the next line it says; empty once it has ended. One longer than `LINE_LIMIT` comes cut."""

    @abstractmethod
    def hang_up(self, timeout: float) -> None:
        """Afterwards the agent has ended, after `timeout` seconds by force; idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Hear nothing more; to be called by who hears."""


class PipeLine(Line):
    """A line through a pair of pipes; the agent ends when the one for requests is closed."""

    def __init__(self, requests: IO[bytes], events: IO[bytes]) -> None:
        self.requests = requests
        self._events = events
        self._lock = threading.Lock()

    def send(self, request: Mapping[str, Any]) -> None:
        data = json.dumps(request).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self.requests.write(data)
            self.requests.flush()

    def hear(self) -> bytes:
        return self._events.readline(LINE_LIMIT)

    def hang_up(self, timeout: float) -> None:
        with contextlib.suppress(BrokenPipeError):  # of an agent that is gone, with a request it never read
            self.requests.close()
        self.wait(timeout)

    def close(self) -> None:
        self._events.close()

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Wait until the agent has ended; make it end after `timeout` seconds."""
