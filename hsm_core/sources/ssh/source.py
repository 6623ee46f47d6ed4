"""Tasks on a machine that is reached by SSH, through an agent there that needs no connection to go on."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hsm_core.config import SourceConfig
from hsm_core.events import Note, SourceDown, SourceUp
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.records import outcome_of, read_record, record_path
from hsm_core.remote import marks, place
from hsm_core.remote.places import Places
from hsm_core.remote.record import put
from hsm_core.sources.agent import AgentSource
from hsm_core.sources.base import CommandResult
from hsm_core.sources.local import THREAD_VARIABLES
from hsm_core.sources.ssh import deploy
from hsm_core.sources.ssh.collector import Collector
from hsm_core.sources.ssh.connection import Connection
from hsm_core.sources.ssh.line import RemoteLine
from hsm_core.sources.ssh.program import Program
from hsm_core.sources.ssh.visit import Visit, visit
from hsm_core.task import Attempt, Outcome

log = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
RETRY = 1.0
"""seconds between two tries to keep a result on a full disk"""


class SshSource(AgentSource):
    type = "ssh"
    outlives_launcher = True
    shares_files = False

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._connection = Connection(name, config)
        self._place = ""
        """the sweep's directory there, once that is known"""
        self._delivered = False
        self._left: list[Attempt] = []
        """attempts that the agent is to be asked about once there is one"""
        self._down: str | None = None
        """why the agent can't be reached now"""
        self._done = threading.Event()
        self._outputs: dict[str, str] = {}
        """the output directories of attempts that are not collected yet, below the sweep's"""
        self._ended: set[str] = set()
        """those of them that have ended"""

    # --- the way to the agent

    def _connect(self) -> None:
        try:
            super()._connect()
        except SourceError as e:
            left, self._left = self._left, []
            self._bury(left, f"its source can't be reached any more: {e}")
            raise
        left, self._left = self._left, []
        if left:
            self.attach(left)

    def _open(self) -> RemoteLine:
        self._line = None
        line = RemoteLine(self._reach, self._sweep.epoch, self._on_down, self._on_up)
        line.open()
        self._down = None
        return line

    def _reach(self) -> Program:
        self._connection.open()
        return visit(self._connection, self.config, self._where, "", self._prepare)

    def _prepare(self, found: Mapping[str, Any]) -> Visit:
        """What the visitor to our agent is told; the first one of this launcher brings what it froze."""
        sweep = self._sweep
        self._place = os.path.join(str(found["base"]), "sweeps", sweep.key, self.name)
        code = os.path.join(self._place, ".hsm", "code")
        delivery = b"" if self._delivered else deploy.delivery(sweep.payload, self._places(code), code)
        self._delivered = True
        threads = {"variables": THREAD_VARIABLES, "each": sweep.config.threads_per_task, "slots": self.slots}
        wanted = {
            "sweep": self._place,
            "source": self.name,
            "mode": self._mode(sweep.config),
            "patience": 3600.0,
            "threads": threads,
            "environment": {**self._environment(), marks.MARK: marks.mark(self._place, sweep.epoch, self.name)},
            "folders": [code],
        }
        return Visit(wanted, delivery)

    def _places(self, code: str) -> Places:
        facts = json.loads((self._sweep.payload / "payload.json").read_text("utf-8"))
        project = [[root, code] for root, copy in facts["frozen"].items() if os.path.basename(copy) == "project"]
        return Places([*project, [str(self._sweep.directory), self._place]], self._place)

    def _environment(self) -> dict[str, str]:
        passed = [name for name in self.config.env.get("pass") or () if name in os.environ]
        values: Mapping[str, object] = self.config.env.get("set") or {}
        return {**{name: os.environ[name] for name in passed}, **{name: str(value) for name, value in values.items()}}

    def _beginning(self) -> dict[str, Any]:
        hsm = os.path.join(self._place, ".hsm")
        return {
            **super()._beginning(),
            "payload": os.path.join(hsm, self._sweep.payload.name),
            "records": os.path.join(hsm, "results"),
            "log": os.path.join(hsm, "agents", f"{self.name}.log"),
            "variables": {"HSM_SWEEP_ID": self._sweep.id, "HSM_SWEEP_DIR": self._place},
        }

    def _fence(self) -> None:
        """The visitor that starts another agent ends what is left of the one before."""

    def _on_down(self, why: str) -> None:
        self._down = why
        self._post(SourceDown(self.name, f"{self._where} can't be reached: {why}. Its tasks go on there."))

    def _on_up(self) -> None:
        self._down = None
        self._post(SourceUp(self.name))

    def _end_of_agent(self) -> str:
        fault = self._line.fault if isinstance(self._line, RemoteLine) else None
        return fault or super()._end_of_agent()

    @property
    def _where(self) -> str:
        return f"{self.name} ({self._connection.address})"

    @property
    def _log(self) -> str:
        return f"{self._connection.address}:{os.path.join(self._place, '.hsm', 'agents', f'{self.name}.log')}"

    def _check(self) -> None:
        if self._down is not None:
            raise Unavailable(f"{self._where} can't be reached: {self._down}")

    # --- attempts

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        super().submit(attempts)

    def attach(self, attempts: Sequence[Attempt]) -> None:
        if not isinstance(self._line, RemoteLine) or self._line.hung_up:
            self._left.extend(attempts)
            return
        self._check()
        with self._lock:
            self._active.update((a.id, a) for a in attempts)
        self._send({"do": "attach", "ids": [a.id for a in attempts]})

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        super().cancel(attempts)

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        self._check()
        return super().run_command(command, timeout)

    def collect(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        wanted = {attempt.id: attempt for attempt in attempts}
        for attempt_id in wanted.keys() - self._outputs.keys():
            self._recall(attempt_id)
        outputs = {attempt_id: self._outputs[attempt_id] for attempt_id in wanted if attempt_id in self._outputs}
        ended = outputs.keys() & self._ended
        if not outputs:
            return
        compress = self._sweep.config.compute.rsync_compression
        how = {"pickles": bool(self.config.trusted), "compress": compress}
        Collector(self._connection, self.name, self._place, self._sweep.directory, **how).collect(outputs, ended)
        for attempt_id in ended:
            self._outputs.pop(attempt_id, None)
            self._ended.discard(attempt_id)

    def _recall(self, attempt_id: str) -> None:
        """Find where an attempt that ended under an earlier launcher has its output, by its record."""
        try:
            record = read_record(self._sweep.records, attempt_id)
        except ValueError:
            return
        if record is not None:
            self._note_output(attempt_id, record.get("output_dir"), ended=True)

    def _note_output(self, attempt_id: str, folder: object, *, ended: bool) -> None:
        """An attempt has its output in `folder`, as it is called here; unless another task has that."""
        if not isinstance(folder, str):
            return
        try:
            place.take(str(self._sweep.directory), folder, attempt_id.split(".")[0])
        except (place.OutputDirectoryError, OSError) as e:
            self._post(Note("ERROR", f"what {attempt_id} left there is not brought: {e}", source=self.name))
            return
        self._outputs[attempt_id] = os.path.relpath(folder, self._sweep.directory)
        if ended:
            self._ended.add(attempt_id)

    def _started(self, event: Mapping[str, Any]) -> None:
        folder = self._home(event.get("output_dir"))
        if event["id"] in self._active:
            self._note_output(event["id"], folder, ended=False)
        super()._started({**event, "output_dir": folder})

    def _outcome(self, attempt_id: str, record: object) -> Outcome:
        """Keep the record here, with its paths as they are here, before anybody hears of it."""
        outcome = outcome_of(record, attempt_id)
        if outcome.record is None:
            return outcome
        assert isinstance(record, Mapping)
        moved = {key: self._home(record.get(key)) for key in ("output_dir", "working_dir")}
        pickled = record.get("pickle") if self.config.trusted else None
        self._keep(attempt_id, {**record, **moved, "pickle": pickled and f"{attempt_id}.pkl"})
        self._note_output(attempt_id, moved["output_dir"], ended=True)
        return msgspec.structs.replace(outcome, output_dir=moved["output_dir"])

    def _keep(self, attempt_id: str, record: Mapping[str, Any]) -> None:
        path = str(record_path(self._sweep.records, attempt_id))
        told = False
        while True:
            try:
                put(path, record)
                return
            except OSError as e:
                if not told:
                    words = f"the result of {attempt_id} can't be kept: {e.strerror}: {path}"
                    self._post(Note("ERROR", f"{words}. It is tried again until there is room.", source=self.name))
                    told = True
                if self._done.wait(RETRY):
                    return

    def _home(self, path: object) -> str | None:
        """A path below the sweep's directory there as it is here, one for tasks; any other is not told."""
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
            return None
        inside = os.path.relpath(path, self._place)
        return None if inside.split(os.sep)[0] in ("..", ".", ".hsm") else str(self._sweep.directory / inside)

    # --- the end

    def stop(self, timeout: float = 10.0) -> None:
        self._done.set()
        super().stop(timeout)
        if self._down is not None:
            log.warning("%s can't be told that the sweep ends: %s. What runs there goes on.", self._where, self._down)
        self._connection.close()

    def leave(self, timeout: float = 10.0) -> None:
        self._stopping = True
        self._done.set()
        if self._line is not None:
            self._hang_up(0.0)
        self._connection.close()
