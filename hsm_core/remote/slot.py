"""A slot: the process that supervises one attempt after the other, each in a worker of its own.

The zygote forks a slot when an attempt comes and none is free, and sends it orders as JSON lines:
`{"run": spec}` and `{"cancel": id}`. A worker is a fork of its slot, as that is of the zygote: what
the zygote imported is there, what another task did to its process is not. With `isolation: reuse`
the worker is kept for the next attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from hsm_core.remote import process
from hsm_core.remote.supervisor import Supervision

_PATIENCE = 2.0
"""seconds a kept worker has to run its exit handlers"""


class Orders:
    """What the zygote tells this slot, in order."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False
        """whether nothing more will come: the zygote is gone"""
        self._buffer = b""
        self._lines: deque[bytes] = deque()

    def next(self) -> Mapping[str, Any] | None:
        """The next order; None when none is there yet."""
        if not self._lines:
            self._read()
        if not self._lines:
            return None
        order: Mapping[str, Any] = json.loads(self._lines.popleft())
        return order

    def _read(self) -> None:
        try:
            while chunk := os.read(self.fd, 65536):
                *lines, self._buffer = (self._buffer + chunk).split(b"\n")
                self._lines.extend(lines)
        except BlockingIOError:
            return
        self.ended = True


@dataclass
class Worker:
    """A process that runs one attempt, or several where it is kept.

    `reports`: where its frames are read; `specs`: where it gets further attempts, None where there are none.
    """

    pid: int
    reports: int
    specs: int | None = None

    def run(self, spec: Mapping[str, Any]) -> bool:
        """Hand it another attempt; False when it has ended."""
        assert self.specs is not None
        try:
            process.write_all(self.specs, json.dumps(spec).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def dismiss(self) -> None:
        """Let it know that it gets no further attempt, so that it ends when it is done; idempotent."""
        if self.specs is not None:
            os.close(self.specs)
            self.specs = None

    def close(self) -> None:
        """Close our ends of the pipes, which dismisses it."""
        self.dismiss()
        os.close(self.reports)


class Starter(Protocol):
    """How workers are started."""

    def prepare(self, spec: Mapping[str, Any]) -> None:
        """Do what the attempt's worker shares with later ones, before it is started."""

    def start(self, spec: Mapping[str, Any]) -> Worker:
        """Start the worker of an attempt."""


class Slot:
    def __init__(self, orders: Orders, events: socket.socket, free: socket.socket, starter: Starter) -> None:
        self._orders = orders
        self._events = events
        self._free = free
        self._starter = starter
        self._kept: Worker | None = None

    def serve(self) -> None:
        """Carry out orders until the zygote is gone."""
        process.adopt_orphans()
        signals = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while not self._orders.ended:
            ready, _, _ = select.select([self._orders.fd, signals], [], [])
            if signals in ready and signal.SIGHUP in process.drain(signals):
                break
            while (order := self._orders.next()) is not None:
                if "run" in order and not self._run(order["run"], signals):
                    return
        self._drop(signals)

    def _run(self, spec: Mapping[str, Any], signals: int) -> bool:
        """Carry one attempt through; False when the zygote is gone and no other will come."""
        self._starter.prepare(spec)
        if self._kept is not None and not spec["reuse"]:
            self._drop(signals)
        supervision = Supervision(spec, self._events)
        supervision.run(self._worker_for, self._orders, signals)
        worker = supervision.worker
        if supervision.kept:
            self._kept = worker
        elif worker is not None:
            worker.close()
        # In this order: once it is known that the attempt is done the next one comes, and is to find this slot free.
        with contextlib.suppress(OSError):  # the zygote is gone: the next look at the orders shows it
            self._free.send(str(os.getpid()).encode())
        supervision.tell("done")
        return supervision.ending != "lost"

    def _worker_for(self, spec: Mapping[str, Any]) -> Worker:
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.run(spec):
                return kept
            kept.close()
        return self._starter.start(spec)

    def _drop(self, signals: int) -> None:
        """End the kept worker, if there is one, as an interpreter ends; and whatever it left behind."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        kept.close()
        process.end_descendants(signals, _PATIENCE, process.reap)


def occupy(orders: int, events: socket.socket, free: socket.socket, starter: Starter, zygote: int) -> NoReturn:
    """Be a slot in this freshly forked process, until the zygote is gone."""
    process.die_with_parent(signal.SIGHUP, zygote)
    code = 1
    try:
        Slot(Orders(orders), events, free, starter).serve()
        code = 0
    finally:
        os._exit(code)
