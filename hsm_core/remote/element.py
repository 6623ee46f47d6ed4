"""One element of a job array: it carries one attempt through on the node that the scheduler gave it.

Its arguments are the folder of its batch and its number in that. `batch.json` there has what the launcher wrote for all
elements (`hsm_core.sources.hpc.batch`). There is no agent; what becomes of an attempt is told by files beside it: the
mark `<attempt>.started`, a JSON object, and `<attempt>.ended`, which is empty and comes after the result record. It is
the job's own process: the scheduler's signals are for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import allocation, process
from hsm_core.remote.record import create, put
from hsm_core.remote.slot import Orders
from hsm_core.remote.supervisor import Supervision
from hsm_core.remote.zygote import Spawner


def main(args: list[str]) -> NoReturn:
    """The batch's folder, and the element's number."""
    batch, spec, marks = begin(args)
    result = os.path.join(batch["records"], spec["id"])
    if not os.path.exists(f"{result}.json"):  # else the scheduler has started a job again that had done its work
        ours = {"record": f"{result}.json", "pickle": f"{result}.pkl", "lease": None, "reuse": False}
        ours["manifest"] = f"{result}.manifest" if batch["manifests"] else None
        _watch({**spec, **ours, "host": socket.gethostname()}, batch["payload"], marks)
    marks.end()
    sys.exit(0)


def begin(args: list[str]) -> tuple[dict[str, Any], dict[str, Any], Marks]:
    """The batch that an element belongs to, with its variables set, and what it is to do; ends one that came twice.

    `args` are the batch's folder and the element's number.
    """
    folder, index = args[0], int(args[1])
    with open(os.path.join(folder, "batch.json"), encoding="utf-8") as f:
        batch: dict[str, Any] = json.load(f)
    spec: dict[str, Any] = batch["attempts"][index]
    marks = Marks(os.path.join(folder, spec["id"]))
    # A controller that lost its memory starts jobs a second time, while the first goes on.
    once = 0 if batch["requeue"] else os.O_EXCL
    try:
        os.close(os.open(os.path.join(folder, f"{spec['id']}.begun"), os.O_CREAT | once, 0o600))
    except FileExistsError:
        sys.exit(f"{spec['id']} was begun before")
    os.environ.update(batch["variables"])
    return batch, spec, marks


def _watch(spec: Mapping[str, Any], payload: str, marks: Marks) -> None:
    """Have the attempt supervised; nothing of it runs any more afterwards, even where its supervisor was killed."""
    process.adopt_orphans()
    signals = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    me = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        _supervise(spec, payload, marks, me)
    while os.waitpid(supervisor, os.WNOHANG)[0] == 0:
        select.select([signals], [], [])
        if signal.SIGTERM in process.drain(signals):
            process.send(supervisor, signal.SIGTERM)
    process.end_descendants(signals, 0.0, process.reap)


def _supervise(spec: Mapping[str, Any], payload: str, marks: Marks, parent: int) -> NoReturn:
    """Carry the attempt through to its record, in this freshly forked process."""
    code = 1
    try:
        process.adopt_orphans()
        signals = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
        process.die_with_parent(signal.SIGHUP, parent)
        nothing, _ = os.pipe()
        Supervision(spec, marks).run(Spawner(payload).start, Orders(nothing), signals)
        code = 0
    finally:
        os._exit(code)


class Marks:
    """Hears what a supervision tells, and leaves of it what the launcher wants to know."""

    def __init__(self, path: str) -> None:
        self._path = path

    def send(self, data: bytes) -> None:
        told: dict[str, Any] = json.loads(data)
        if told.pop("ev") == "started":
            self.started(**told)

    def started(self, **facts: Any) -> None:
        given = {"gpus": allocation.gpus(os.environ), "memory": allocation.memory(os.environ)}
        put(f"{self._path}.started", {**facts, **given})

    def end(self) -> None:
        os.close(create(f"{self._path}.ended"))
