"""The zygote: the app imported once, forked for every attempt.

`fork`: the app's entry runs here and stops where Hydra would take over; workers are forks of
this process. `spawn`: the app is not imported here; each worker is a new interpreter. In both, a
supervisor stands between. The agent sends attempts as JSON lines through a pipe and gets
datagrams back.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import memory, process, worker
from hsm_core.remote.app import App, EntryError, Payload, reach
from hsm_core.remote.seeds import Seeds
from hsm_core.remote.supervisor import supervise

_DATAGRAM = 100_000
"""bytes a message to the agent may have"""


def main(args: list[str]) -> NoReturn:
    """Payload folder, `fork` or `spawn`, request pipe, event socket, the agent's pid."""
    folder, mode = args[0], args[1]
    requests, events = int(args[2]), socket.socket(fileno=int(args[3]))
    os.set_inheritable(requests, False)
    events.set_inheritable(False)
    process.die_with_parent(signal.SIGKILL, int(args[4]))
    process.adopt_orphans()
    zygote = Zygote(folder, requests, events)
    if mode == "spawn":
        zygote.serve(None)
    seeds = Seeds()
    seeds.watch()
    try:
        reach(Payload.read(folder), lambda app: zygote.serve(app, seeds))
    except EntryError as e:
        zygote.tell("unusable", reason=str(e)[-_DATAGRAM:])
    except BaseException:
        zygote.tell(
            "unusable", reason="the payload of the sweep can't be used:\n" + traceback.format_exc()[-_DATAGRAM:]
        )
    os._exit(1)


class Zygote:
    def __init__(self, folder: str, requests: int, events: socket.socket) -> None:
        self._folder = folder
        self._requests = requests
        self._events = events
        self._supervisors: dict[int, str] = {}

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
        wakeup = process.wakeup_pipe(signal.SIGCHLD)
        memory.current()  # found once here, for all supervisors
        gc.collect()
        gc.freeze()
        self.tell("ready", pid=os.getpid(), python=sys.version.split()[0])
        buffer = b""
        while True:
            ready, _, _ = select.select([self._requests, wakeup], [], [])
            if wakeup in ready:
                process.drain(wakeup)
                self._reap()
            if self._requests in ready:
                chunk = os.read(self._requests, 65536)
                if not chunk:
                    os._exit(0)
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._start(json.loads(line), app, seeds)

    def _start(self, spec: Mapping[str, Any], app: App | None, seeds: Seeds | None) -> None:
        if app is not None:
            app.composer.prepare(spec["overrides"])
        sys.stdout.flush()
        sys.stderr.flush()
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(self._requests)
            supervise(spec, self._events, self._spawn if app is None else _forker(app, seeds, self._events), me)
        self._supervisors[pid] = spec["id"]
        self.tell("forked", id=spec["id"], pid=pid)

    def _reap(self) -> None:
        for pid in list(self._supervisors):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.tell("gone", id=self._supervisors.pop(pid), status=os.waitstatus_to_exitcode(status))

    def _spawn(self, spec: Mapping[str, Any], pipe: int) -> int:
        command = [sys.executable, *process.interpreter_flags(), os.path.join(os.path.dirname(__file__), "__main__.py")]
        child = subprocess.Popen(
            [*command, "worker", self._folder, str(pipe), str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=[pipe],
            start_new_session=True,
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(spec).encode())
        child.stdin.close()
        child.returncode = 0  # the supervisor waits for it, Popen must not
        return child.pid


def _forker(app: App, seeds: Seeds | None, events: socket.socket) -> Any:
    def start(spec: Mapping[str, Any], pipe: int) -> int:
        supervisor = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            process.reset_signals()
            process.die_with_parent(signal.SIGKILL, supervisor)
            events.close()
            worker.mark(spec)
            if seeds is not None:
                seeds.renew()
            worker.run(app, spec, pipe)
        finally:
            os._exit(1)

    return start


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
