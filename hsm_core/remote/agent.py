"""The agent: one process per source, between the launcher and the zygote.

The launcher's requests and the agent's events are JSON objects, one a line (`hsm_core.remote.lines`
says through what). The first request, `begin`, says what sweep the agent works for; an agent may
be started before there is one. One whose launcher is its parent never outlives that by more than
the tasks' grace time; one with a door lives on, and a later launcher's `begin` gives it another
zygote for what is yet to come.
"""

from __future__ import annotations

import functools
import json
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import gpus, health, leases, process
from hsm_core.remote.commands import Commands
from hsm_core.remote.lines import Door, Line, Parent
from hsm_core.remote.record import read
from hsm_core.remote.zygote_process import ZygoteProcess

PATIENCE = 3.0
"""seconds that slots have to end the workers they kept"""
CRASHES = 3
"""zygotes in a row that may end by themselves before the source is given up"""


def main(args: list[str]) -> NoReturn:
    """`fork` or `spawn`; for an agent with a door also the door's folder and patience in seconds."""
    mode, *door = args
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process.adopt_orphans()
    line = Door(door[0], float(door[1])) if door else Parent()
    Agent(mode, line).run()
    line.close()
    sys.exit(0)


class Agent:
    def __init__(self, mode: str, line: Line) -> None:
        self._mode = mode
        self._line = line
        self._sweep: Mapping[str, Any] = {}
        """what the last `begin` said"""
        self._host = socket.gethostname()
        self._attempts: dict[str, dict[str, Any]] = {}
        """attempts under way: their specs, with the `pid` of their slot once they have one"""
        self._carriers: dict[str, ZygoteProcess] = {}
        """the zygote of each attempt that was handed over"""
        self._started: dict[str, Mapping[str, Any]] = {}
        """what was told of the start of attempts under way"""
        self._cancelled: set[str] = set()
        self._waiting: list[str] = []
        """attempts for which the zygote is not ready yet"""
        self._commands = Commands()
        self._unwritable: dict[str, str] = {}
        self._gpus: dict[str, Any] = {}
        """facts for the launcher"""
        self._lease: dict[str, Any] | None = None
        """what every attempt leases: of which devices (names by id) how many; None: tasks see all GPUs"""
        self._waited = False
        self._crashes = 0
        self._stopping: float | None = None
        """when everything that still runs is killed"""
        self._events, self._events_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.setblocking(False)
        self._zygote: ZygoteProcess | None = self._new_zygote()
        self._retired: list[ZygoteProcess] = []
        """those of earlier launchers, until what they run has ended"""

    def run(self) -> None:
        """Serve until told to stop, or until no launcher can come, and nothing runs any more."""
        wakeup = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM)
        own = [wakeup, self._events.fileno()]
        while self._stopping is None or self._attempts:
            outputs = self._line.outputs()
            readable, writable, _ = select.select([*own, *self._line.inputs()], outputs, [], self._patience())
            if self._events.fileno() in readable:
                self._hear_zygotes()
            if wakeup in readable:
                if signal.SIGTERM in process.drain(wakeup):
                    self._stop(0.0)
                self._reap()
            for request in self._line.exchange([*readable, *writable]):
                self._request(request)
            self._expire()
        self._end_zygotes(wakeup)

    def _say(self, kind: str, **body: Any) -> None:
        """Tell the launcher."""
        self._line.say(json.dumps({"ev": kind, **body}).encode() + b"\n")

    def _patience(self) -> float | None:
        deserted = self._line.deserted_at(bool(self._attempts)) if self._stopping is None else self._stopping
        moments = [*self._commands.deadlines(), *([] if deserted is None else [deserted])]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _expire(self) -> None:
        """Kill what has outlived its time: commands, and everything when stopping."""
        self._commands.expire()
        if self._stopping is None:
            deserted = self._line.deserted_at(bool(self._attempts))
            if deserted is not None and time.monotonic() >= deserted:
                self._stop(max((a["grace"] for a in self._attempts.values()), default=0.0))
        elif time.monotonic() >= self._stopping:
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
        elif do == "attach":
            for attempt_id in request["ids"]:
                self._attach(attempt_id)
        elif do == "cancel":
            for attempt_id in request["ids"]:
                self._cancel(attempt_id)
        elif do == "command":
            answer = functools.partial(self._say, "command", id=request["id"])
            self._commands.start(request["argv"], request["timeout"], answer)
        elif do == "health":
            answer = functools.partial(self._say, "health", id=request["id"])
            health.tell(self._sweep.get("records", os.getcwd()), self._commands, answer, gpus=request["gpus"])
        elif do == "stop":
            self._stop(request["grace"])

    def _begin(self, sweep: Mapping[str, Any]) -> None:
        """The sweep is there: its payload and records folders, isolation, log file, variables, and wanted GPUs.

        `manifests`: whether each attempt is to leave one, for somebody who copies its output.
        """
        self._sweep = sweep
        os.environ.update(sweep["variables"])
        process.write_to(sweep["log"], 2)
        if self._zygote is not None and self._zygote.sweep is not None:
            self._retire(self._zygote)
            self._zygote = None
        self._crashes = 0
        if self._zygote is None:
            self._zygote = self._new_zygote()
        self._zygote.begin(sweep)
        if sweep["gpus"] is not None:
            self._find_gpus(**sweep["gpus"])

    def _run(self, attempt: dict[str, Any]) -> None:
        record, pickle = (self._result(attempt["id"], suffix) for suffix in ("json", "pkl"))
        # What a limit holds, or a GPU was lent to, must end before another can have that.
        reuse = self._sweep["isolation"] == "reuse" and attempt["memory"] is None and self._lease is None
        ours = {"record": record, "pickle": pickle, "host": self._host, "lease": self._lease, "reuse": reuse}
        ours["manifest"] = self._result(attempt["id"], "manifest") if self._sweep["manifests"] else None
        self._attempts[attempt["id"]] = {**attempt, **ours}
        if self._zygote is not None and self._zygote.ready:
            self._hand_over(attempt["id"], self._zygote)
        else:
            self._waiting.append(attempt["id"])

    def _hand_over(self, attempt_id: str, zygote: ZygoteProcess) -> None:
        if zygote.order("run", self._attempts[attempt_id]):
            self._carriers[attempt_id] = zygote
        else:
            self._waiting.append(attempt_id)
            zygote.ready = False

    def _attach(self, attempt_id: str) -> None:
        """Tell another launcher of an attempt: that it runs, how it ended, or that there is nothing of it here."""
        if attempt_id in self._started:
            self._say("started", **self._started[attempt_id])
        elif attempt_id not in self._attempts:
            self._tell_end(attempt_id, self._result(attempt_id, "json"), "its agent is gone, and it left no result")

    def _result(self, attempt_id: str, suffix: str) -> str:
        return os.path.join(self._sweep["records"], f"{attempt_id}.{suffix}")

    def _cancel(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        self._cancelled.add(attempt_id)
        if attempt_id in self._waiting:
            self._waiting.remove(attempt_id)
            self._lost(attempt_id, "ended before it was started", cause="cancelled")
        else:
            self._carriers[attempt_id].order("cancel", attempt_id)  # one that has ended took its slots along

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

    # --- zygotes and their children

    def _new_zygote(self) -> ZygoteProcess:
        return ZygoteProcess(self._mode, self._events_out.fileno())

    def _retire(self, zygote: ZygoteProcess) -> None:
        """Give a zygote nothing more; it ends when what it carries has."""
        self._retired.append(zygote)
        self._dismiss_idle()

    def _dismiss_idle(self) -> None:
        for zygote in [*self._retired]:
            if zygote not in self._carriers.values():
                self._retired.remove(zygote)
                zygote.let_go()

    def _end_zygotes(self, signals: int) -> None:
        """End the zygotes, their slots, and whatever they left behind; returns once all of it is gone."""
        for zygote in [*self._retired, *([] if self._zygote is None else [self._zygote])]:
            zygote.kill()
        process.end_descendants(signals, PATIENCE, process.reap)

    def _hear_zygotes(self) -> None:
        while True:
            try:
                message = json.loads(self._events.recv(1 << 20))
            except BlockingIOError:
                return
            getattr(self, f"_on_{message.pop('ev')}")(**message)

    def _on_ready(self, pid: int, python: str) -> None:
        zygote = self._zygote
        if zygote is None or pid != zygote.pid:
            return
        zygote.ready = True
        facts = {"host": self._host, "pid": os.getpid(), "python": python, "worker": self._mode}
        self._say("ready", **facts, cpus=os.cpu_count(), **self._gpus)
        waiting, self._waiting = self._waiting, []
        for attempt_id in waiting:
            self._hand_over(attempt_id, zygote)

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
        for attempt_id, attempt in self._attempts.items():
            if "pid" in attempt and self._carriers[attempt_id] is self._zygote:
                process.send(attempt["pid"], signal.SIGHUP)
        if not self._retired:
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
        attempt_id = facts["id"]
        if attempt_id in self._attempts:
            self._carriers[attempt_id].reached = True
            self._started[attempt_id] = facts
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
        if attempt is not None:
            carrier = self._carriers.get(id)
            reached = carrier is None or carrier.reached
            self._tell_end(id, attempt["record"], self._unwritable.pop(id, without), reached)

    def _tell_end(self, id: str, path: str, without: str, reached: bool = True) -> None:
        """Tell what the record of an attempt says; before the app was `reached` a failed import is its own."""
        try:
            record = read(path)
        except FileNotFoundError:
            self._lost(id, without)
            return
        except ValueError as e:
            self._lost(id, f"invalid result: {e}")
            return
        if isinstance(record, dict) and record.get("unreached") and not reached:
            os.unlink(path)
            self._on_unusable(record["error"]["traceback"])
            self._lost(id, record["message"])
            return
        self._forget(id)
        self._say("finished", id=id, record=record)

    def _lost(self, attempt_id: str, reason: str, cause: str = "lost") -> None:
        self._forget(attempt_id)
        self._say("lost", id=attempt_id, reason=reason, cause=cause, host=self._host)

    def _forget(self, attempt_id: str) -> None:
        for known in (self._attempts, self._carriers, self._started):
            known.pop(attempt_id, None)
        self._cancelled.discard(attempt_id)
        self._dismiss_idle()

    def _reap(self) -> None:
        """Collect ended children: commands, zygotes, and slots they left to us."""
        self._commands.reap()
        for zygote in [*self._retired, *([] if self._zygote is None else [self._zygote])]:
            status = zygote.ended()
            if status is not None:
                self._zygote_ended(zygote, status)
        for attempt_id, attempt in list(self._attempts.items()):
            if "pid" in attempt and self._ended(attempt["pid"]):
                self._hear_zygotes()
                self._on_gone(attempt_id, -1)

    def _ended(self, pid: int) -> bool:
        """Whether a slot that became our child has ended; it is reaped then."""
        try:
            return os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return False

    def _zygote_ended(self, zygote: ZygoteProcess, status: int) -> None:
        self._hear_zygotes()
        for attempt_id, attempt in list(self._attempts.items()):
            if "pid" not in attempt and self._carriers.get(attempt_id) is zygote:
                cause = "cancelled" if attempt_id in self._cancelled else "lost"
                self._lost(attempt_id, f"the process that starts tasks ended with {status}", cause)
        if zygote in self._retired:
            self._retired.remove(zygote)
            zygote.let_go()
        if zygote is not self._zygote:
            return
        zygote.let_go()
        self._zygote = None
        if self._stopping is not None or zygote.sweep is None:
            return
        if status != 0:
            self._crashes += 1
        if self._crashes >= CRASHES:
            ends = f"the app's process ended {CRASHES} times by itself, last with {status}"
            self._say("unusable", reason=f"{ends}; see {zygote.sweep['log']}")
            self._stop(0.0)
        else:
            self._zygote = self._new_zygote()
            self._zygote.begin(zygote.sweep)
