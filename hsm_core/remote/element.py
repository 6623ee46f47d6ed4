"""One element of a job array: it carries one attempt through on the node that the scheduler gave it.

Its arguments are the folder of its batch and its number in that. `batch.json` there has what the launcher wrote for all
elements (`hsm_core.sources.hpc.batch`). There is no agent; what becomes of an attempt is told by files beside it: the
mark `<attempt>.<start>.started`, a JSON object, and `<attempt>.<start>.ended`, which is empty and comes after the
result record; the scheduler may start an element several times (`hsm_core.remote.starts`). It is the job's own process:
the scheduler's signals are for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import allocation, process, starts
from hsm_core.remote.record import create, put, read
from hsm_core.remote.slot import Orders
from hsm_core.remote.supervisor import WARNING, Supervision
from hsm_core.remote.zygote import Spawner


def main(args: list[str]) -> NoReturn:
    """Arguments as for `begin`."""
    batch, spec, marks = begin(args)
    result = os.path.join(batch["records"], spec["id"])
    if marks.number:
        _forget_interruption(f"{result}.json")
    if not os.path.exists(f"{result}.json"):  # else the scheduler has started a job again that had done its work
        ours = {"record": f"{result}.json", "pickle": f"{result}.pkl", "lease": None, "reuse": False}
        ours["manifest"] = f"{result}.manifest" if batch["manifests"] else None
        _watch({**spec, **ours, "host": socket.gethostname()}, batch["payload"], marks)
    marks.end()
    sys.exit(0)


def begin(args: list[str]) -> tuple[dict[str, Any], dict[str, Any], Marks]:
    """The batch that an element belongs to, with its variables set, and what it is to do; ends one that came twice.

    `args` are the batch's folder, the element's number and, where the scheduler tells that, how often it was started
    before. Earlier starts have ended by then.
    """
    folder, index, number = args[0], int(args[1]), int(args[2]) if len(args) > 2 else None
    with open(os.path.join(folder, "batch.json"), encoding="utf-8") as f:
        batch: dict[str, Any] = json.load(f)
    spec: dict[str, Any] = batch["attempts"][index]
    path = os.path.join(folder, spec["id"])
    try:
        # A controller that lost its memory starts jobs a second time, while the first goes on.
        number = starts.begin(path, number, again=batch["requeue"])
    except FileExistsError:
        sys.exit(f"{spec['id']} was begun before")
    starts.take_over(path, number)
    os.environ.update(batch["variables"])
    return batch, spec, Marks(path, number)


def _forget_interruption(record: str) -> None:
    """Remove the record of an earlier start that was told to end: the scheduler has it go on."""
    try:
        left = read(record)
    except (FileNotFoundError, ValueError):
        return
    if isinstance(left, dict) and left.get("cause") == "cancelled":
        os.unlink(record)


def _watch(spec: Mapping[str, Any], payload: str, marks: Marks) -> None:
    """Have the attempt supervised; nothing of it runs any more afterwards, even where its supervisor was killed."""
    process.adopt_orphans()
    signals = process.wakeup_pipe(signal.SIGCHLD, *_FORWARDED)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    me = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        _supervise(spec, payload, marks, me)
    while os.waitpid(supervisor, os.WNOHANG)[0] == 0:
        select.select([signals], [], [], marks.patience)
        for signum in process.drain(signals):
            if signum in _FORWARDED:
                process.send(supervisor, signum)
        if marks.called_off():
            process.send(supervisor, signal.SIGKILL)  # of what it supervises nothing counts any more
    process.end_descendants(signals, 0.0, process.reap)


_FORWARDED = (signal.SIGTERM, WARNING)
"""what the scheduler sends that the supervisor is to know"""


def _supervise(spec: Mapping[str, Any], payload: str, marks: Marks, parent: int) -> NoReturn:
    """Carry the attempt through to its record, in this freshly forked process."""
    code = 1
    try:
        process.adopt_orphans()
        signals = process.wakeup_pipe(signal.SIGCHLD, signal.SIGHUP, *_FORWARDED)
        process.die_with_parent(signal.SIGHUP, parent)
        nothing, _ = os.pipe()
        Supervision(spec, marks).run(Spawner(payload).start, Orders(nothing), signals)
        code = 0
    finally:
        os._exit(code)


class Marks:
    """Hears what a supervision tells, and leaves of it what the launcher wants to know; of one start of an element."""

    def __init__(self, path: str, number: int) -> None:
        self._path = path
        self.number = number
        self._look_at = time.monotonic() + starts.LOOK

    def send(self, data: bytes) -> None:
        told: dict[str, Any] = json.loads(data)
        if told.pop("ev") == "started":
            self.started(**told)

    def started(self, **facts: Any) -> None:
        given = {"gpus": allocation.gpus(os.environ), "memory": allocation.memory(os.environ)}
        put(f"{self._path}.{self.number}.started", {**facts, **given})

    @property
    def patience(self) -> float:
        """Seconds until it is to be looked again whether this start was called off."""
        return max(0.0, self._look_at - time.monotonic())

    def called_off(self) -> bool:
        """Whether this start is found to be called off; the disk is looked at when it is time for that."""
        if self.patience > 0:
            return False
        self._look_at = time.monotonic() + starts.LOOK
        return starts.called_off(self._path, self.number)

    def end(self) -> None:
        os.close(create(f"{self._path}.{self.number}.ended"))
