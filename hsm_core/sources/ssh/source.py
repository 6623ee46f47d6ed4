"""Tasks on a machine that is reached by SSH, through an agent there that needs no connection to go on."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import Note, SourceDown, SourceUp
from hsm_core.exceptions import HsmError, Incomplete, SourceError, Unavailable
from hsm_core.records import outcome_of, record_path
from hsm_core.remote import gpus, marks, place
from hsm_core.remote.record import put
from hsm_core.sources import environment
from hsm_core.sources.agent import AgentSource
from hsm_core.sources.base import CommandResult, Health, Post, SweepContext
from hsm_core.sources.local import THREAD_VARIABLES
from hsm_core.sources.ssh.line import RemoteLine
from hsm_core.ssh import deploy
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.program import Program
from hsm_core.ssh.visit import Arrival, Visit, arrive, visit
from hsm_core.task import Attempt, Cause, Outcome
from hsm_core.transfer.code import Code
from hsm_core.transfer.collector import Collector
from hsm_core.transfer.outputs import Outputs
from hsm_core.transfer.parcels import Parcels
from hsm_core.transfer.transfers import Transfers

log = logging.getLogger(__name__)

RETRY = 1.0
"""seconds between two tries to keep a result on a full disk"""
LAST_STEPS = 5.0
"""seconds that threads have to notice the end of the connection"""


class SshSource(AgentSource):
    type = "ssh"
    outlives_launcher = True
    shares_files = False

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._connection = Connection(name, config)
        self._base = self._place = self._folder = ""
        """our folder there, the sweep's directory in it, and the app's code, once they are known"""
        self._delivered = False
        self._left: list[Attempt] = []
        """attempts that the agent is to be asked about once there is one"""
        self._down: str | None = None
        """why the agent can't be reached now"""
        self._done = threading.Event()
        self._warming: threading.Thread | None = None
        self._arrival: Arrival | None = None
        """a visitor that waits there for the sweep"""
        self._code: Code | None = None
        self._bringing: Future[Sequence[str]] | None = None
        """the code's way there"""
        self._helpers: list[threading.Thread] = []
        """which end soon once there is no connection"""
        self._outputs: Outputs | None = None
        self._transfers: Transfers | None = None
        self._late: set[str] = set()
        """attempts that wait for what earlier ones left elsewhere"""
        self._handing_over = threading.Lock()
        self._told: set[str] = set()
        """what was said of paths, which is said once"""

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        wanted = gpus.request(config.gpus, gpus_per_task)
        return 1 if wanted is None or wanted["per_task"] == 0 else 0

    # --- the way to the agent

    def warm_up(self, directory: Path, sweep: HsmConfig, threads_per_task: int) -> None:
        self._connection = Connection(self.name, self.config, compress=sweep.compute.ssh_compression)
        self._warming = self._have_helped("warm", self._try_to_arrive)

    def _have_helped(self, what: str, target: Callable[..., None], *args: Any) -> threading.Thread:
        """Start a thread beside those that call us."""
        thread = threading.Thread(target=target, args=args, name=f"hsm-{what}-{self.name}", daemon=True)
        self._helpers.append(thread)
        thread.start()
        return thread

    def _try_to_arrive(self) -> None:
        with contextlib.suppress(SourceError):  # told by `start`, if it comes to that
            self._connection.open()
            self._arrival = arrive(self._connection, self.config, self._where)

    def start(self, sweep: SweepContext, post: Post) -> None:
        if self._warming is None:
            self._connection = Connection(self.name, self.config, compress=sweep.config.compute.ssh_compression)
        else:
            self._warming.join()
        super().start(sweep, post)

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
        sweep = self._sweep
        if self._transfers is None:
            self._transfers = Transfers(self._connection, compress=sweep.config.compute.rsync_compression)
        if self._code is None:
            hidden = [Path(file).resolve() for file in (sweep.config.config_file, sweep.config.sweep_file) if file]
            self._code = Code(sweep.payload, self.config.project_dir, hidden)
        self._line = None
        self._bringing = None
        line = RemoteLine(self._reach, sweep.epoch, self._on_down, self._on_up)
        line.open()
        assert self._bringing is not None
        try:
            for words in self._bringing.result():
                self._post(Note("WARNING", words, source=self.name))
        except HsmError as e:
            line.send({"do": "stop", "grace": 0.0})
            line.hang_up(2.0)
            raise SourceError(f"{self._where}: {e}") from e
        self._down = None
        return line

    def _reach(self) -> Program:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            with contextlib.suppress(Unavailable):  # it was lost while it waited
                return visit(arrival, self.config, self._where, self._prepare)
        self._connection.open()
        return visit(arrive(self._connection, self.config, self._where), self.config, self._where, self._prepare)

    def _prepare(self, found: Mapping[str, Any]) -> Visit:
        """What the visitor to our agent is told; the first one of this launcher brings what it froze."""
        sweep, code = self._sweep, self._code
        assert code is not None
        self._base = str(found["base"])
        self._place = os.path.join(self._base, "sweeps", sweep.key, self.name)
        self._folder = code.folder(self._base, str(found["home"]), self._place)
        if self._outputs is None and self._transfers is not None:
            pickles, cleans = bool(self.config.trusted), sweep.config.result_collection.cleanup_remote_on_success
            command = deploy.command(self._base, str(found["executable"]), "parcel")
            parcels = Parcels(self._connection, command, self._place)
            collector = Collector(self._transfers, parcels, self.name, self._place, sweep.directory, pickles=pickles)
            self._outputs = Outputs(sweep.directory, self._place, collector, cleans=cleans)
        if self._bringing is None:
            # While the agent starts.
            self._bringing = Future()
            self._have_helped("code", self._bring, self._bringing)
        delivery = b""
        if not self._delivered:
            places = code.places(self._folder, sweep.directory, self._place)
            delivery = deploy.delivery(sweep.payload, places, self._folder, frozen=code.frozen)
        self._delivered = True
        threads = {"variables": THREAD_VARIABLES, "each": sweep.config.threads_per_task, "slots": self.slots}
        wanted = {
            "sweep": self._place,
            "source": self.name,
            "mode": self._mode(sweep.config),
            "patience": sweep.config.compute.orphan_timeout,
            "threads": threads,
            "environment": {**self._environment(), marks.MARK: marks.mark(self._place, sweep.epoch, self.name)},
            "folders": [self._folder] if code.made_here else [],
        }
        return Visit(wanted, delivery)

    def _bring(self, told: Future[Sequence[str]]) -> None:
        """Have the code there; `told` is what people should know of it, or why it is not there."""
        assert self._code is not None
        assert self._transfers is not None
        try:
            told.set_result(self._code.bring(self._connection, self._transfers, self._base, self._folder))
        except BaseException as e:
            told.set_exception(e)

    def _environment(self) -> dict[str, str]:
        variables, warnings = environment.given(self.config)
        for words in warnings:
            self._tell_once(words)
        return variables

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
        self._down = why.removeprefix(f"{self._where}: ")
        self._post(SourceDown(self.name, f"{self._where}: {self._down}. Its tasks go on there."))

    def _on_up(self) -> None:
        self._down = None
        self._post(SourceUp(self.name))

    def _end_of_agent(self) -> str:
        fault = self._line.fault if isinstance(self._line, RemoteLine) else None
        return fault or super()._end_of_agent()

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "address": self._connection.address, "shares_files": self.shares_files}

    @property
    def _where(self) -> str:
        return f"{self.name} ({self._connection.address})"

    @property
    def _log(self) -> str:
        return f"{self._connection.address}:{os.path.join(self._place, '.hsm', 'agents', f'{self.name}.log')}"

    def _check(self) -> None:
        if self._down is not None:
            raise Unavailable(f"{self._where} can't be reached: {self._down}")
        if not isinstance(self._line, RemoteLine) or self._line.hung_up:
            raise Unavailable(f"{self._where}: it has no agent now")

    # --- attempts

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        late = [attempt for attempt in attempts if attempt.left is not None and os.path.isdir(attempt.left)]
        at_once = [attempt for attempt in attempts if attempt not in late]
        if at_once:
            super().submit(at_once)
        if late:
            with self._lock:
                self._active.update((a.id, a) for a in late)
            self._late.update(attempt.id for attempt in late)
            self._have_helped("push", self._submit_late, late)

    def _submit_late(self, attempts: Sequence[Attempt]) -> None:
        """Bring there what earlier attempts elsewhere left, and then submit those that are not cancelled by then."""
        assert self._transfers is not None
        names = [os.path.relpath(str(attempt.left), self._sweep.directory) for attempt in attempts]
        try:
            self._transfers.push(self._connection, self._sweep.directory, names, self._place)
        except SourceError as e:
            words = f"what earlier attempts left can't be brought there, they begin without it: {e}"
            self._post(Note("WARNING", words, source=self.name))
        with self._handing_over:
            wanted = [attempt for attempt in attempts if attempt.id in self._late]
            self._late.difference_update(attempt.id for attempt in wanted)
            super().submit(wanted)

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
        with self._handing_over:
            late = self._late.intersection(attempt.id for attempt in attempts)
            self._late -= late
            super().cancel(attempts)
        for attempt_id in late:
            self._finished(attempt_id, Outcome.failed(Cause.CANCELLED, "ended before it was started"))

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        self._check()
        return super().run_command(command, timeout)

    def health(self) -> Health | None:
        self._check()
        return super().health()

    def collect(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        if self._outputs is not None:
            skipped, late = self._outputs.collect([attempt.id for attempt in attempts], self._connection)
            for words in skipped:
                self._tell_once(words)
            if late:
                raise Incomplete(f"{self._where}: {next(iter(late.values()))}", frozenset(late))

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self._post(Note("WARNING", words, source=self.name))

    def _home(self, path: object) -> str | None:
        assert self._outputs is not None
        return self._outputs.home(path)

    def _started(self, event: Mapping[str, Any]) -> None:
        folder = self._home(event.get("output_dir"))
        if event["id"] in self._active and self._outputs is not None:
            self._book(event["id"], partial(self._outputs.began, event["id"], folder))
            self._tell_missing(event.get("missing"))
        super()._started({**event, "output_dir": folder})

    def _book(self, attempt_id: str, note: Callable[[], None]) -> None:
        """Take note of where an attempt has its output."""
        try:
            note()
        except (place.OutputDirectoryError, OSError) as e:
            self._post(Note("ERROR", f"what {attempt_id} left there is not brought: {e}", source=self.name))

    def _tell_missing(self, paths: object) -> None:
        """Say once of each path in a task's configuration that it is here, but not there."""
        for path in paths if isinstance(paths, list) else ():
            if isinstance(path, str) and os.path.exists(path):
                words = f"the configuration names what is on this machine only: {path!r}"
                self._tell_once(f"{words}. Put it there under the same name.")

    def _outcome(self, attempt_id: str, record: object) -> Outcome:
        """Keep the record here, with its paths as they are here, before anybody hears of it."""
        outcome = outcome_of(record, attempt_id)
        if outcome.record is None:
            return outcome
        assert isinstance(record, Mapping)
        assert self._outputs is not None
        moved = {key: self._home(record.get(key)) for key in ("output_dir", "working_dir")}
        pickled = record.get("pickle") if self.config.trusted else None
        self._keep(attempt_id, {**record, **moved, "pickle": pickled and f"{attempt_id}.pkl"})
        folder = moved["output_dir"]
        self._book(attempt_id, partial(self._outputs.ended, attempt_id, folder, completed=outcome.completed))
        return msgspec.structs.replace(outcome, output_dir=folder)

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

    # --- the end

    def stop(self, timeout: float = 10.0) -> None:
        self._done.set()
        super().stop(timeout)
        if self._down is not None:
            log.warning("%s can't be told that the sweep ends: %s. What runs there goes on.", self._where, self._down)
        elif self._outputs is not None:
            with contextlib.suppress(Unavailable):  # what stays is of no use, and of no harm
                self._outputs.close(self._connection)
        self._part()

    def leave(self, timeout: float = 10.0) -> None:
        self._stopping = True
        self._done.set()
        if self._line is not None:
            self._hang_up(0.0)
        self._part()

    def _part(self) -> None:
        """Hang up, and wait for the threads that notice that."""
        self._connection.close()
        for thread in self._helpers:
            thread.join(LAST_STEPS)
