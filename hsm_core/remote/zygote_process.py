"""A zygote as its agent sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from hsm_core.remote import process


class ZygoteProcess:
    """A running zygote: it gets orders through a pipe of its own and answers through the socket `events`."""

    def __init__(self, mode: str, events: int) -> None:
        self.sweep: Mapping[str, Any] | None = None
        """what sweep it was told of"""
        self.ready = False
        self.reached = False
        """whether a worker got to the app's task function; until then a failed import is the app's"""
        requests, self._requests = os.pipe()
        command = [sys.executable, *process.interpreter_flags()]
        command += [os.path.join(os.path.dirname(__file__), "__main__.py"), "zygote", mode]
        self._child = subprocess.Popen(
            [*command, *map(str, (requests, events, os.getpid()))],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=[requests, events],
            start_new_session=True,
        )
        os.close(requests)

    @property
    def pid(self) -> int:
        return self._child.pid

    def begin(self, sweep: Mapping[str, Any]) -> None:
        """Tell it what sweep it is for."""
        self.sweep = sweep
        self.order("begin", sweep)

    def order(self, do: str, what: object) -> bool:
        """Write an order to it; False when it has ended."""
        try:
            process.write_all(self._requests, json.dumps({do: what}).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def ended(self) -> int | None:
        """Its exit status once it has ended, None before."""
        return self._child.poll()

    def let_go(self) -> None:
        """Close the pipe, which ends it."""
        os.close(self._requests)

    def kill(self) -> None:
        """End it at once, with all its slots; returns when it is gone."""
        process.send(self.pid, signal.SIGKILL)
        self._child.wait()
