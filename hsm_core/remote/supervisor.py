"""The supervision of one attempt, in the process that is its worker's parent (`hsm_core.remote.slot`).

It has the worker started, ends it at its time limit or when told to, ends whatever the task leaves
behind, and writes the result record. It outlives the worker, so every way a task can end
leaves a record; and what a task forks and forgets becomes its child, so nothing escapes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hsm_core.remote import leases, manifest, process
from hsm_core.remote.gpus import GpuError
from hsm_core.remote.memory import Memory, shortage_words
from hsm_core.remote.output import Output
from hsm_core.remote.record import FORMAT, put
from hsm_core.remote.worker import HEADER, NO_SPACE, PATIENCE, RETRY

if TYPE_CHECKING:
    from hsm_core.remote.slot import Orders, Worker

_ENDINGS: dict[int, str] = {signal.SIGTERM: "cancelled", signal.SIGHUP: "lost"}
"""why an attempt is ended, by the signal that asks for it; the kernel sends SIGHUP when the zygote is gone"""
WARNING = signal.SIGUSR2
"""what a scheduler's job is sent some time before its limit; submitit has it so, as NCCL may catch SIGUSR1"""
_LOOK_EVERY = 1.0
"""seconds between two looks at the size of the task's output"""
_MOMENT = 1.0
"""seconds that processes left behind have to end by themselves"""


class Listener(Protocol):
    """Who hears what becomes of an attempt, as JSON objects."""

    def send(self, data: bytes, /) -> object:
        """Take one. Raises OSError where nobody listens any more."""


Start = Callable[[Mapping[str, Any]], "Worker"]
"""Gives an attempt its worker."""


class Supervision:
    """One attempt from the worker's start to its record."""

    def __init__(self, spec: Mapping[str, Any], events: Listener) -> None:
        self._spec = spec
        self._events = events
        self._buffer = b""
        self._running: dict[str, Any] = {}
        self._report: dict[str, Any] | None = None
        self.ending: str | None = None
        """cause for which the attempt is being ended early"""
        self._kill_at: float | None = None
        self.worker: Worker | None = None
        self.kept = False
        """whether the worker has handed itself back, to be used again"""
        self._pid = 0
        self._status: int | None = None
        self._peak = 0.0
        self._memory = Memory(spec["id"], spec["memory"])
        self._output: Output | None = None
        """the task's output files, once there are any and if they have a limit"""
        self._look_at = 0.0

    def run(self, start: Start, orders: Orders, signals: int) -> None:
        """Carry the attempt through to its record.

        `signals`: where the numbers of signals are read (`process.wakeup_pipe`).
        """
        self._heed(orders, signals)
        lease = None
        try:
            if self._spec["lease"] is not None and not self.ending:
                lease = self._lease(orders, signals, **self._spec["lease"])
            duration, left = (0.0, 0) if self.ending else self._attend(start, orders, signals)
        except GpuError as e:
            self.tell("unwritable", reason=str(e))
            return
        finally:
            if lease is not None:
                lease.release()
        record = self._record(duration, left)
        self._memory.release()
        self._leave(record, orders, signals)

    def _leave(self, record: Mapping[str, Any], orders: Orders, signals: int) -> None:
        """Write the record, and before it the manifest if one is wanted; on a full disk once there is room."""
        self._pid = 0  # nothing of the attempt is left to be ended
        deadline = time.monotonic() + PATIENCE
        told = False
        while True:
            try:
                if self._spec["manifest"] is not None and record.get("output_dir"):
                    manifest.write(record["output_dir"], self._spec["manifest"])
                put(self._spec["record"], record)
                return
            except OSError as e:
                reason = f"{e.strerror}: {self._spec['record']}"
                unwanted = self.ending in _ENDINGS.values() or time.monotonic() >= deadline
                if e.errno not in NO_SPACE or unwanted:
                    self.tell("unwritable", reason=reason)
                    return
            if not told:
                self.tell("full", reason=reason)
                told = True
            select.select([signals, orders.fd], [], [], RETRY)
            self._heed(orders, signals)

    def _lease(self, orders: Orders, signals: int, devices: Mapping[str, str], per_task: float) -> leases.Lease:
        """Get the attempt its GPUs, waiting while others have them; none if it is ended before. Raises GpuError.

        They are held by open files, until they are released and the worker has ended.
        """
        lease = leases.Lease(list(devices), per_task)
        taken = lease.take()
        if not taken:
            self.tell("waiting")
        while not taken and self.ending is None:
            select.select([signals, orders.fd], [], [], leases.LOOK)
            self._heed(orders, signals)
            taken = lease.take()
        if taken:
            names = [devices[device] for device in lease.devices]
            self._spec = {**self._spec, "gpus": names, "descriptors": lease.descriptors}
        return lease

    def _attend(self, start: Start, orders: Orders, signals: int) -> tuple[float, int]:
        """Run the worker to its end; returns its run time in seconds and how many processes it left behind."""
        began = time.monotonic()
        self.worker = start(self._spec)
        self._pid, pipe = self.worker.pid, self.worker.reports
        self._memory.hold(self._pid)
        timeout = self._spec["timeout"]
        deadline = None if timeout is None else began + timeout
        inputs = [pipe, signals, orders.fd]
        while self._status is None and not self.kept:
            ready, _, _ = select.select(inputs, [], [], self._patience(deadline))
            if pipe in ready and not self._listen(pipe):
                inputs.remove(pipe)
            self._heed(orders, signals)
            if orders.ended and orders.fd in inputs:
                inputs.remove(orders.fd)
            if deadline is not None and time.monotonic() >= deadline:
                self._end("timeout")
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
            if self._output is not None and time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + _LOOK_EVERY
                self._output.check()
            self._reap()
        duration = time.monotonic() - began
        if (
            self.ending is None
            and self._status is not None
            and os.waitstatus_to_exitcode(self._status) == -signal.SIGTERM
        ):
            # A scheduler tells all processes of a job at once: what the worker heard is on its way to us.
            select.select([signals], [], [], _MOMENT)
            self._heed(orders, signals)
        left = 0
        if self._status is not None:
            self.kept = False
            self._listen(pipe)
            left = self._clean(signals)
        if self._output is not None:
            self._output.close()
        return duration, left

    def _heed(self, orders: Orders, signals: int) -> None:
        """Do what signals and orders ask for."""
        for signum in process.drain(signals):
            if signum in _ENDINGS:
                self._end(_ENDINGS[signum])
            elif signum == WARNING and self._pid and process.catches(self._pid, WARNING):
                process.send(self._pid, WARNING)
        while (order := orders.next()) is not None:
            if order.get("cancel") == self._spec["id"]:
                self._end("cancelled")
        if orders.ended:
            self._end("lost")

    def tell(self, kind: str, **body: Any) -> None:
        """Send the agent a datagram; an agent that is gone needs none."""
        try:
            self._events.send(json.dumps({"ev": kind, "id": self._spec["id"], **body}).encode())
        except OSError:
            return

    def _patience(self, deadline: float | None) -> float | None:
        """Seconds until something has to be done unasked."""
        look = None if self._output is None else self._look_at
        moments = [m for m in (None if self.ending else deadline, self._kill_at, look) if m is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _listen(self, pipe: int) -> bool:
        """Take in the worker's frames; False when its end of the pipe is closed."""
        try:
            while chunk := os.read(pipe, 65536):
                self._buffer += chunk
        except BlockingIOError:
            chunk = b"open"
        while len(self._buffer) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._buffer)
            if len(self._buffer) < HEADER.size + size:
                break
            frame = json.loads(self._buffer[HEADER.size : HEADER.size + size])
            self._buffer = self._buffer[HEADER.size + size :]
            if "running" in frame:
                self._running = frame["running"]
                self._watch_output()
                facts = {"pid": self._pid, "host": self._spec["host"], "gpus": self._spec.get("gpus")}
                self.tell("started", **facts, **self._running)
            elif "report" in frame:
                self._report = frame["report"]
            else:
                self._peak = max(self._peak, mebibytes(frame["free"]))
                self._hand_back()
        return bool(chunk)

    def _hand_back(self) -> None:
        """Keep the worker for another attempt, unless the task left processes behind: those end with it."""
        self.kept = self.ending is None and process.descendants(os.getpid()) == [self._pid]
        if not self.kept and self.worker is not None:
            self.worker.dismiss()
            self._kill_at = self._kill_at or time.monotonic() + self._spec["grace"]

    def _watch_output(self) -> None:
        if self._spec["max_output"] is not None:
            self._output = Output(self._running["output_dir"], self._spec["max_output"])
            self._look_at = time.monotonic() + _LOOK_EVERY

    def _end(self, cause: str) -> None:
        """Ask the worker to end; after its grace time it is killed."""
        if self.ending is None:
            self.ending = cause
            if self._pid:
                self._kill_at = time.monotonic() + self._spec["grace"]
                process.send(self._pid, signal.SIGTERM, group=True)
                process.send(self._pid, signal.SIGCONT, group=True)

    def _kill(self) -> None:
        self._kill_at = time.monotonic() + 1.0
        process.send(self._pid, signal.SIGKILL, group=True)
        for pid in process.descendants(os.getpid()):
            process.send(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collect ended children: the worker, and orphans it left to us."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._peak = max(self._peak, mebibytes(usage.ru_maxrss))
            if pid == self._pid:
                self._status = status

    def _clean(self, signals: int) -> int:
        """End what the task left behind; returns how many processes had to be killed.

        Helpers that end with their parent (multiprocessing's resource tracker) get a moment to
        do so.
        """
        self._reap()
        killed = process.end_descendants(signals, _MOMENT, self._reap)
        process.send(self._pid, signal.SIGKILL, group=True)
        return killed

    def _record(self, duration: float, left: int) -> dict[str, Any]:
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        exit_code = code if code is not None and code >= 0 else None
        signum = -code if code is not None and code < 0 else None
        record: dict[str, Any] = {
            "format": FORMAT,
            **{key: self._spec[key] for key in ("task", "attempt", "epoch", "host")},
            "pid": self._pid or None,
            "gpus": self._spec.get("gpus"),
            "exit_code": exit_code,
            "signal": signum,
            "duration": round(duration, 6),
            "peak_memory": round(self._peak, 3),
            "message": "",
            "warning": None,
            **self._running,
            **(self._report or {}),
        }
        completed = self._report is not None and self._report["status"] == "completed"
        if not completed:
            record["status"] = "failed"
            record["cause"], record["message"] = self._failure(exit_code, signum)
        elif signum is not None:
            _warn(record, f"the process was ended by {signal.Signals(signum).name} after the task had returned")
        if left:
            _warn(record, f"{left} process{'es' if left > 1 else ''} the task left behind ended")
        if record.get("pickle"):
            record["pickle"] = os.path.basename(record["pickle"])
        else:
            with contextlib.suppress(OSError):  # of a worker that ended while it wrote there
                os.unlink(self._spec["pickle"])
        return record

    def _failure(self, exit_code: int | None, signum: int | None) -> tuple[str, str]:
        cause, message = explain(self.ending, self._report, exit_code, signum, self._spec["timeout"])
        if self.ending is not None:
            return cause, message
        shortage = self._memory.shortage(signum == signal.SIGKILL, self._peak)
        if shortage is None and cause == "oom" and self._spec["memory"] is not None:
            shortage = shortage_words(self._spec["memory"], self._peak)
        if shortage is None:
            return cause, message
        return "oom", shortage if self._report is None else f"{shortage}: {message}"


def explain(
    ending: str | None,
    report: Mapping[str, Any] | None,
    exit_code: int | None,
    signum: int | None,
    timeout: float | None,
) -> tuple[str, str]:
    """Cause and one-line message of an attempt that did not complete."""
    if ending == "timeout":
        return "timeout", f"ended at its time limit of {timeout:g} s"
    if ending == "cancelled":
        return "cancelled", "ended before it was done"
    if ending == "lost":
        return "lost", "the process that started it is gone"
    if report is not None:
        return report["cause"], report["message"]
    if signum is not None:
        return "lost", f"the process was ended by {signal.Signals(signum).name} (signal {signum})"
    return "error", f"the process exited with code {exit_code} without reporting a result"


def _warn(record: dict[str, Any], words: str) -> None:
    record["warning"] = f"{record['warning']}; {words}" if record["warning"] else words


def mebibytes(maxrss: int) -> float:
    """MiB behind a `ru_maxrss`."""
    # getrusage(2): kilobytes on Linux, bytes on macOS
    return maxrss / 1024 if process.LINUX else maxrss / (1 << 20)
