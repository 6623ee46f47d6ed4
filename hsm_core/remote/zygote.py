"""The zygote: the app imported once, forked for every attempt.

`fork`: the app's entry runs here and stops where Hydra would take over; workers are forks of
this process. `spawn`: the app is not imported here; each worker is a new interpreter. In both, a
slot stands between (`hsm_core.remote.slot`). The agent sends orders as JSON lines through a pipe and gets
datagrams back.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import gpus, memory, process, worker
from hsm_core.remote.app import App, EntryError, Payload, import_hydra, reach
from hsm_core.remote.seeds import Seeds
from hsm_core.remote.slot import Starter, Worker, occupy

_DATAGRAM = 100_000
"""bytes a message to the agent may have"""
_STUBBORN = 10.0
"""seconds after which an orphan that can't be killed (in an uninterruptible system call) is left alone"""
_ASK_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""with 1, `torch.cuda.is_available()` asks the driver's monitor and leaves CUDA alone, which can't be forked then"""


def main(args: list[str]) -> NoReturn:
    """`fork` or `spawn`, request pipe, event socket, the agent's pid."""
    mode, requests, events = args[0], int(args[1]), socket.socket(fileno=int(args[2]))
    os.set_inheritable(requests, False)
    events.set_inheritable(False)
    process.die_with_parent(signal.SIGKILL, int(args[3]))
    process.adopt_orphans()
    if mode == "fork":
        with contextlib.suppress(ImportError):  # told in `reach`, when there is a sweep to tell it for
            import_hydra()
    folder = _begun(requests)
    zygote = Zygote(folder, requests, events)
    if mode == "spawn":
        zygote.serve(None)
    seeds = Seeds()
    seeds.watch()
    asked = os.environ.get(_ASK_NVML)
    os.environ[_ASK_NVML] = "1" if asked is None else asked

    def serve(app: App) -> NoReturn:
        if asked is None:
            del os.environ[_ASK_NVML]
        zygote.serve(app, seeds)

    try:
        reach(Payload.read(folder), serve)
    except EntryError as e:
        zygote.tell("unusable", reason=str(e)[-_DATAGRAM:])
    except BaseException:
        zygote.tell(
            "unusable", reason="the payload of the sweep can't be used:\n" + traceback.format_exc()[-_DATAGRAM:]
        )
    os._exit(1)


def _begun(requests: int) -> str:
    """Wait for the first order, which says what sweep there is, and do as it says; returns the payload folder."""
    order = b""
    while not order.endswith(b"\n"):  # nothing follows it before we say that we are ready
        chunk = os.read(requests, 65536)
        if not chunk:
            os._exit(0)
        order += chunk
    sweep: Mapping[str, Any] = json.loads(order)["begin"]
    os.environ.update(sweep["variables"])
    process.write_to(sweep["log"], 1, 2)
    return str(sweep["payload"])


class Zygote:
    def __init__(self, folder: str, requests: int, events: socket.socket) -> None:
        self._folder = folder
        self._requests = requests
        self._events = events
        self._slots: dict[int, int] = {}
        """where each slot, by pid, gets its orders"""
        self._carries: dict[int, str] = {}
        """the last attempt of each slot"""
        self._idle: set[int] = set()
        """slots that wait for an attempt"""
        self._before: frozenset[int] = frozenset()
        """children that the app's import started, which serve all tasks"""
        self._free, self._free_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._free.setblocking(False)

    def tell(self, kind: str, **body: Any) -> None:
        """Send the agent a datagram. Raises OSError when the agent is gone."""
        self._events.send(json.dumps({"ev": kind, **body}).encode())

    def serve(self, app: App | None, seeds: Seeds | None = None) -> NoReturn:
        """Start attempts until the request pipe is closed. Ends the process."""
        if app is not None and (why := unsafe_to_fork()) is not None:
            self.tell("unsafe", reason=why)
            os._exit(0)
        if seeds is not None:
            seeds.keep()
        starter: Starter = Spawner(self._folder) if app is None else _Forker(app, seeds, self._events, self._free_out)
        self._before = frozenset(process.children(os.getpid()))
        signals = process.wakeup_pipe(signal.SIGCHLD)
        memory.current()  # found once here, for all slots
        gc.collect()
        gc.freeze()
        self.tell("ready", pid=os.getpid(), python=sys.version.split()[0])
        buffer = b""
        while True:
            ready, _, _ = select.select([self._requests, self._free.fileno(), signals], [], [])
            if self._free.fileno() in ready:
                self._hear_slots()
            if signals in ready:
                process.drain(signals)
                self._reap()
            if self._requests in ready:
                chunk = os.read(self._requests, 65536)
                if not chunk:
                    os._exit(0)
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._obey(line, starter)

    def _obey(self, line: bytes, starter: Starter) -> None:
        order = json.loads(line)
        if "run" in order:
            spec = order["run"]
            pid = self._idle.pop() if self._idle else self._new_slot(spec, starter)
            self._carries[pid] = spec["id"]
            self.tell("placed", id=spec["id"], pid=pid)
            self._pass_on(pid, line)
            return
        for pid, attempt in self._carries.items():
            if attempt == order["cancel"]:
                self._pass_on(pid, line)

    def _new_slot(self, spec: Mapping[str, Any], starter: Starter) -> int:
        starter.prepare(spec)
        sys.stdout.flush()
        sys.stderr.flush()
        me = os.getpid()
        orders, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            # Whoever holds the other end of a slot's orders keeps it from seeing that the zygote is gone.
            for fd in (write, self._requests, *self._slots.values()):
                os.close(fd)
            self._free.close()
            occupy(orders, self._events, self._free_out, starter, me)
        os.close(orders)
        self._slots[pid] = write
        return pid

    def _pass_on(self, pid: int, line: bytes) -> None:
        """Give an order to a slot; one that has ended is about to be reaped."""
        with contextlib.suppress(BrokenPipeError):
            process.write_all(self._slots[pid], line + b"\n")

    def _hear_slots(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._idle.add(int(self._free.recv(32)))

    def _reap(self) -> None:
        self._hear_slots()
        for pid in list(self._slots):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                os.close(self._slots.pop(pid))
                if os.WIFSIGNALED(status):
                    self._end_orphans()
                self._idle.discard(pid)
                # It may have told the attempt's end before; then nobody listens to this.
                self.tell("gone", id=self._carries.pop(pid), status=os.waitstatus_to_exitcode(status))

    def _end_orphans(self) -> None:
        """End what a slot that was killed has left to us: its worker, and all that this one started.

        Afterwards its attempt can be called lost: nothing of it writes any more.
        """
        me = os.getpid()
        deadline = time.monotonic() + _STUBBORN
        while time.monotonic() < deadline:
            orphans = [pid for pid in process.children(me) if pid not in self._slots and pid not in self._before]
            if not orphans:
                return
            for orphan in orphans:
                for pid in (orphan, *process.descendants(orphan)):
                    process.send(pid, signal.SIGKILL)
            time.sleep(0.005)
            for orphan in orphans:
                os.waitpid(orphan, os.WNOHANG)


class Spawner:
    """Starts a new interpreter for each worker."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def prepare(self, spec: Mapping[str, Any]) -> None:
        """There is nothing that interpreters share."""

    def start(self, spec: Mapping[str, Any]) -> Worker:
        command = [sys.executable, *process.interpreter_flags(), os.path.join(os.path.dirname(__file__), "__main__.py")]
        pipes = _Pipes()
        child = subprocess.Popen(
            [*command, "worker", self._folder, *map(str, pipes.inner), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[*pipes.inner, *spec.get("descriptors", ())],
            start_new_session=True,
        )
        child.returncode = 0  # the slot waits for it, Popen must not
        worker = pipes.outer(child.pid)
        worker.run(spec)
        return worker


class _Forker:
    """Forks workers of this process, which has imported the app."""

    def __init__(self, app: App, seeds: Seeds | None, *sockets: socket.socket) -> None:
        self._app = app
        self._seeds = seeds
        self._sockets = sockets

    def prepare(self, spec: Mapping[str, Any]) -> None:
        self._app.prepare(spec["overrides"])

    def start(self, spec: Mapping[str, Any]) -> Worker:
        slot = os.getpid()
        pipes = _Pipes()
        pid = os.fork()
        if pid:
            return pipes.outer(pid)
        try:
            os.setsid()
            process.reset_signals()
            process.die_with_parent(signal.SIGKILL, slot)
            for end in self._sockets:
                end.close()
            reports, specs = pipes.kept()
            if self._seeds is not None:
                self._seeds.renew()
            worker.run(self._app, spec, reports, specs)
        finally:
            os._exit(1)


class _Pipes:
    """The two pipes between a slot and a worker: reports one way, attempts the other."""

    def __init__(self) -> None:
        self._reports, report = os.pipe()
        spec, self._specs = os.pipe()
        self.inner = report, spec
        """the worker's ends"""

    def outer(self, pid: int) -> Worker:
        """In the slot: close the worker's ends; the worker as it is seen from here."""
        for fd in self.inner:
            os.close(fd)
        os.set_blocking(self._reports, False)
        return Worker(pid, self._reports, self._specs)

    def kept(self) -> tuple[int, int]:
        """In a forked worker: close the slot's ends; ours for reports and attempts."""
        os.close(self._reports)
        os.close(self._specs)
        return self.inner


def unsafe_to_fork() -> str | None:
    """Why this process can't be forked safely now, or None.

    Only the forking thread lives on in a child; locks that others hold stay held for ever.
    """
    others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    if others:
        return f"threads run after the app's import: {', '.join(others)}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA is initialised by the app's import"
    device = gpus.opened()
    if device is not None:
        return f"a GPU is in use after the app's import ({device})"
    native = native_threads()
    if native:
        return f"{native} native threads run after the app's import"
    return None


def native_threads() -> int:
    """Threads of this process beside the main one which no library makes safe to fork.

    OpenBLAS ends its threads before a fork and starts new ones after (blas_server.c,
    pthread_atfork), so where it is loaded, up to one thread a core and copy of it is no danger.
    """
    try:
        threads = len(os.listdir("/proc/self/task")) - 1
        with open("/proc/self/maps") as f:
            copies = len({line.split()[-1] for line in f if "openblas" in line})
    except OSError:
        return 0
    return max(0, threads - copies * (os.cpu_count() or 1))
