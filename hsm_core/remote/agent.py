"""The agent: one process per source, between the launcher and the zygote.

The launcher writes requests and reads events, one JSON object a line, through the agent's
standard input and output. The first request, `begin`, says what sweep the agent works for; an
agent may be started before there is one. When the input ends, so does everything the agent
started: it never outlives its launcher by more than the tasks' grace time.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import gpus, leases, process
from hsm_core.remote.commands import Commands
from hsm_core.remote.record import read

PATIENCE = 3.0
"""seconds that slots have to end the workers they kept"""
CRASHES = 3
"""zygotes in a row that may end by themselves before the source is given up"""


def main(args: list[str]) -> NoReturn:
    """`fork` or `spawn`."""
    (mode,) = args
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process.adopt_orphans()
    Agent(mode).run()
    sys.exit(0)


class Agent:
    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._sweep: Mapping[str, Any] | None = None
        """what `begin` said"""
        self._host = socket.gethostname()
        self._attempts: dict[str, dict[str, Any]] = {}
        """attempts under way: their specs, with the `pid` of their slot once they have one"""
        self._cancelled: set[str] = set()
        self._waiting: list[str] = []
        """attempts for which the zygote is not ready yet"""
        self._commands = Commands(self._say)
        self._unwritable: dict[str, str] = {}
        self._gpus: dict[str, Any] = {}
        """facts for the launcher"""
        self._lease: dict[str, Any] | None = None
        """what every attempt leases: of which devices (names by id) how many; None: tasks see all GPUs"""
        self._waited = False
        self._zygote: subprocess.Popen[bytes] | None = None
        self._requests = -1
        self._ready = False
        self._reached = False
        """whether a worker got to the app's task function; until then a failed import is the app's"""
        self._crashes = 0
        self._stopping: float | None = None
        """when everything that still runs is killed"""
        self._events, self._events_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.setblocking(False)

    def run(self) -> None:
        """Serve until told to stop, or until the launcher is gone, and nothing runs any more."""
        wakeup = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM)
        os.set_blocking(0, False)
        self._start_zygote()
        buffer = b""
        inputs = [0, wakeup, self._events.fileno()]
        while self._stopping is None or self._attempts:
            ready, _, _ = select.select(inputs, [], [], self._patience())
            if self._events.fileno() in ready:
                self._hear_zygote()
            if wakeup in ready:
                if signal.SIGTERM in process.drain(wakeup):
                    self._stop(0.0)
                self._reap()
            if 0 in ready:
                chunk = process.drain(0)
                if not chunk:
                    inputs.remove(0)
                    self._stop(max((a["grace"] for a in self._attempts.values()), default=0.0))
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._request(json.loads(line))
            self._expire()
        self._end_zygote(wakeup)

    def _say(self, kind: str, **body: Any) -> None:
        """Tell the launcher. One that is gone is noticed by the end of the input."""
        try:
            process.write_all(1, json.dumps({"ev": kind, **body}).encode() + b"\n")
        except BrokenPipeError:
            return

    def _patience(self) -> float | None:
        moments = [*self._commands.deadlines()]
        if self._stopping is not None:
            moments.append(self._stopping)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _expire(self) -> None:
        """Kill what has outlived its time: commands, and everything when stopping."""
        self._commands.expire()
        if self._stopping is not None and time.monotonic() >= self._stopping:
            for pid in process.descendants(os.getpid()):
                process.send(pid, signal.SIGKILL)

    # --- requests of the launcher

    def _request(self, request: Mapping[str, Any]) -> None:
        do = request["do"]
        if do == "begin":
            self._begin(request)
        elif do == "run":
            for attempt in request["attempts"]:
                self._run(attempt)
        elif do == "cancel":
            for attempt_id in request["ids"]:
                self._cancel(attempt_id)
        elif do == "command":
            self._commands.start(request["id"], request["argv"], request["timeout"])
        elif do == "stop":
            self._stop(request["grace"])

    def _begin(self, sweep: Mapping[str, Any]) -> None:
        """The sweep is there: its payload and records folders, isolation, log file, variables, and wanted GPUs."""
        self._sweep = sweep
        os.environ.update(sweep["variables"])
        process.write_to(sweep["log"], 2)
        if self._zygote is None:
            self._start_zygote()
        else:
            self._order("begin", sweep)
        if sweep["gpus"] is not None:
            self._find_gpus(**sweep["gpus"])

    def _run(self, attempt: dict[str, Any]) -> None:
        assert self._sweep is not None
        record = os.path.join(self._sweep["records"], f"{attempt['id']}.json")
        pickle = os.path.join(self._sweep["records"], f"{attempt['id']}.pkl")
        # What a limit holds, or a GPU was lent to, must end before another can have that.
        reuse = self._sweep["isolation"] == "reuse" and attempt["memory"] is None and self._lease is None
        ours = {"record": record, "pickle": pickle, "host": self._host, "lease": self._lease, "reuse": reuse}
        self._attempts[attempt["id"]] = {**attempt, **ours}
        if self._ready:
            self._hand_over(attempt["id"])
        else:
            self._waiting.append(attempt["id"])

    def _hand_over(self, attempt_id: str) -> None:
        if not self._order("run", self._attempts[attempt_id]):
            self._waiting.append(attempt_id)
            self._ready = False

    def _order(self, do: str, what: object) -> bool:
        """Write an order to the zygote; False when it has ended."""
        try:
            process.write_all(self._requests, json.dumps({do: what}).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def _cancel(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        self._cancelled.add(attempt_id)
        if attempt_id in self._waiting:
            self._waiting.remove(attempt_id)
            self._lost(attempt_id, "ended before it was started", cause="cancelled")
        else:
            self._order("cancel", attempt_id)  # a zygote that has ended took its slots along

    def _stop(self, grace: float) -> None:
        """End everything; what has not ended after `grace` seconds and a little more is killed."""
        first = self._stopping is None
        self._stopping = min(self._stopping or math.inf, time.monotonic() + grace + 1.0)
        if first:
            for attempt_id in list(self._attempts):
                self._cancel(attempt_id)

    def _find_gpus(self, wanted: Any, per_task: float) -> None:
        """Find what tasks will lease; the source is of no use where that is not to be had."""
        try:
            devices = gpus.leasable(wanted, per_task, os.environ)
            leases.check(device.id for device in devices)
        except gpus.GpuError as e:
            self._on_unusable(str(e))
            return
        self._lease = {"devices": {device.id: device.name for device in devices}, "per_task": per_task}
        self._gpus = {"gpus": [{"id": device.id, "name": device.name, "model": device.model} for device in devices]}

    # --- the zygote and its children

    def _start_zygote(self) -> None:
        requests, self._requests = os.pipe()
        command = [sys.executable, *process.interpreter_flags()]
        command += [os.path.join(os.path.dirname(__file__), "__main__.py"), "zygote", self._mode]
        events = self._events_out.fileno()
        numbers = requests, events, os.getpid()
        self._zygote = subprocess.Popen(
            [*command, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=[requests, events],
            start_new_session=True,
        )
        os.close(requests)
        if self._sweep is not None:
            self._order("begin", self._sweep)

    def _end_zygote(self, signals: int) -> None:
        """End the zygote, its slots, and whatever they left behind; returns once all of it is gone."""
        if self._zygote is not None:
            process.send(self._zygote.pid, signal.SIGKILL)
            self._zygote.wait()
        process.end_descendants(signals, PATIENCE, process.reap)

    def _hear_zygote(self) -> None:
        while True:
            try:
                message = json.loads(self._events.recv(1 << 20))
            except BlockingIOError:
                return
            getattr(self, f"_on_{message.pop('ev')}")(**message)

    def _on_ready(self, pid: int, python: str) -> None:
        self._ready = True
        facts = {"host": self._host, "pid": os.getpid(), "python": python, "worker": self._mode}
        self._say("ready", **facts, cpus=os.cpu_count(), **self._gpus)
        waiting, self._waiting = self._waiting, []
        for attempt_id in waiting:
            self._hand_over(attempt_id)

    def _on_unsafe(self, reason: str) -> None:
        self._mode = "spawn"
        self._say("note", level="INFO", message=f"{reason}: each task gets a new interpreter instead of a fork")

    def _on_unusable(self, reason: str) -> None:
        """The app can't be reached from here: nothing runs, and what waits is for other sources."""
        if self._stopping is not None:
            return
        self._say("unusable", reason=reason)
        for attempt_id in self._waiting:
            self._lost(attempt_id, reason)
        self._waiting = []
        for attempt in self._attempts.values():
            if "pid" in attempt:
                process.send(attempt["pid"], signal.SIGHUP)
        self._stop(0.0)

    def _on_placed(self, id: str, pid: int) -> None:
        if id in self._attempts:
            self._attempts[id]["pid"] = pid

    def _on_waiting(self, id: str) -> None:
        if not self._waited:
            self._waited = True
            message = "tasks wait for GPUs that other sweeps have leased; they start in turn as these are given back"
            self._say("note", level="INFO", message=message)

    def _on_started(self, **facts: Any) -> None:
        self._crashes = 0
        self._reached = True
        self._say("started", **facts)

    def _on_full(self, id: str, reason: str) -> None:
        if id in self._attempts:
            what = f"{self._attempts[id]['name']} has ended, but there is no room for its result: {reason}"
            self._say("note", level="WARNING", message=f"{what}. It waits for room on {self._host}.")

    def _on_unwritable(self, id: str, reason: str) -> None:
        self._unwritable[id] = reason

    def _on_done(self, id: str) -> None:
        """The slot of an attempt is done with it."""
        self._settle(id, "its slot could not write the result")

    def _on_gone(self, id: str, status: int) -> None:
        """The slot of an attempt ended in the middle of it, or just behind."""
        self._settle(id, f"its slot ended with {status} before it wrote a result")

    def _settle(self, id: str, without: str) -> None:
        """Tell how an attempt ended, by its record; `without` says why there is none."""
        attempt = self._attempts.get(id)
        if attempt is None:
            return
        try:
            record = read(attempt["record"])
        except FileNotFoundError:
            self._lost(id, self._unwritable.pop(id, without))
            return
        except ValueError as e:
            self._lost(id, f"invalid result: {e}")
            return
        if isinstance(record, dict) and record.get("unreached") and not self._reached:
            os.unlink(attempt["record"])
            self._on_unusable(record["error"]["traceback"])
            self._lost(id, record["message"])
            return
        del self._attempts[id]
        self._cancelled.discard(id)
        self._say("finished", id=id, record=record)

    def _lost(self, attempt_id: str, reason: str, cause: str = "lost") -> None:
        del self._attempts[attempt_id]
        self._cancelled.discard(attempt_id)
        self._say("lost", id=attempt_id, reason=reason, cause=cause, host=self._host)

    def _reap(self) -> None:
        """Collect ended children: commands, the zygote, and slots it left to us."""
        self._commands.reap()
        if self._zygote is not None and self._zygote.poll() is not None:
            self._zygote_ended(self._zygote.returncode)
        for attempt_id, attempt in list(self._attempts.items()):
            if "pid" in attempt and self._ended(attempt["pid"]):
                self._hear_zygote()
                self._on_gone(attempt_id, -1)

    def _ended(self, pid: int) -> bool:
        """Whether a slot that became our child has ended; it is reaped then."""
        try:
            return os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return False

    def _zygote_ended(self, status: int) -> None:
        self._hear_zygote()
        self._zygote = None
        self._ready = False
        os.close(self._requests)
        for attempt_id, attempt in list(self._attempts.items()):
            if "pid" not in attempt and attempt_id not in self._waiting:
                cause = "cancelled" if attempt_id in self._cancelled else "lost"
                self._lost(attempt_id, f"the process that starts tasks ended with {status}", cause)
        if self._stopping is not None or self._sweep is None:
            return
        if status != 0:
            self._crashes += 1
        if self._crashes >= CRASHES:
            ends = f"the app's process ended {CRASHES} times by itself, last with {status}"
            self._say("unusable", reason=f"{ends}; see {self._sweep['log']}")
            self._stop(0.0)
        else:
            self._start_zygote()
