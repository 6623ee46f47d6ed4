"""What a source has on a host that shares no files with us: the way there, a folder of ours, and the way home.

The host is given our code, the app's, and what the launcher froze. What its tasks leave comes home, and what it says of
them with it: records with their paths as they are here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import Note
from hsm_core.exceptions import Incomplete, SourceError, Unavailable
from hsm_core.records import outcome_of, record_path
from hsm_core.remote import place
from hsm_core.remote.record import put
from hsm_core.sources.base import Post, SweepContext
from hsm_core.ssh import deploy
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.program import Program
from hsm_core.ssh.visit import Arrival, Visit, arrive, visit
from hsm_core.task import Attempt, Outcome
from hsm_core.transfer.code import Code
from hsm_core.transfer.collector import Collector
from hsm_core.transfer.outputs import Outputs
from hsm_core.transfer.parcels import Parcels
from hsm_core.transfer.transfers import Transfers

RETRY = 1.0
"""seconds between two tries to keep a result on a full disk"""
LAST_STEPS = 5.0
"""seconds that threads have to notice the end of the connection"""


class Outpost:
    """One source's hold on one host. `role`: which of our programs (`hsm_core.remote`) is come to there.

    `base`, `place`, `folder` and `executable` are there once that was reached: our folder, the sweep's directory in it,
    that of the app's code, and the Python.
    """

    def __init__(self, name: str, config: SourceConfig, role: str) -> None:
        self._name = name
        self._config = config
        self._role = role
        self.connection = Connection(name, config)
        self.base = self.place = self.folder = self.executable = ""
        self._delivered = False
        self._done = threading.Event()
        self._warming: threading.Thread | None = None
        self._arrival: Arrival | None = None
        """a program that waits there for the sweep"""
        self._code: Code | None = None
        self._bringing: Future[Sequence[str]] | None = None
        """the code's way there"""
        self._helpers: list[threading.Thread] = []
        """which end soon once there is no connection"""
        self._outputs: Outputs | None = None
        self._late: set[str] = set()
        """attempts that wait for what earlier ones left elsewhere"""
        self._handing_over = threading.Lock()
        self._told: set[str] = set()
        """what was said, which is said once"""

    @property
    def where(self) -> str:
        return f"{self._name} ({self.connection.address})"

    # --- the way there

    def warm_up(self, sweep: HsmConfig) -> None:
        """Come there while nobody knows for which sweep; what goes wrong is told by `begin`, if it comes to that."""
        self.connection = Connection(self._name, self._config, compress=sweep.compute.ssh_compression)
        self._warming = self._have_helped("warm", self._try_to_arrive)

    def _have_helped(self, what: str, target: Callable[..., None], *args: Any) -> threading.Thread:
        """Start a thread beside those that call us."""
        thread = threading.Thread(target=target, args=args, name=f"hsm-{what}-{self._name}", daemon=True)
        self._helpers.append(thread)
        thread.start()
        return thread

    def _try_to_arrive(self) -> None:
        with contextlib.suppress(SourceError):
            self.connection.open()
            self._arrival = arrive(self.connection, self._config, self.where, self._role)

    def begin(self, sweep: SweepContext, post: Post) -> None:
        """Work for this sweep. Raises SnapshotError where the code can't be listed."""
        self._sweep, self._post = sweep, post
        if self._warming is None:
            self.connection = Connection(self._name, self._config, compress=sweep.config.compute.ssh_compression)
        else:
            self._warming.join()
        self._transfers = Transfers(self.connection, compress=sweep.config.compute.rsync_compression)
        self._outputs = None
        hidden = [Path(file).resolve() for file in (sweep.config.config_file, sweep.config.sweep_file) if file]
        self._code = Code(sweep.payload, self._config.project_dir, hidden)

    def reach(self, wanted: Callable[[], Mapping[str, Any]]) -> Program:
        """Come to our program there, which then has what the launcher froze; the code is on its way by then.

        `wanted`: what else it has to know. Raises SourceError where it can't work there, Unavailable where the host
        can't be reached now.
        """
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            with contextlib.suppress(Unavailable):  # it was lost while it waited
                return self._visit(arrival, wanted)
        self.connection.open()
        return self._visit(arrive(self.connection, self._config, self.where, self._role), wanted)

    def _visit(self, arrival: Arrival, wanted: Callable[[], Mapping[str, Any]]) -> Program:
        program = visit(arrival, self._config, self.where, partial(self._prepare, wanted))
        self._delivered = True
        return program

    def _prepare(self, wanted: Callable[[], Mapping[str, Any]], found: Mapping[str, Any]) -> Visit:
        sweep, code = self._sweep, self._code
        assert code is not None
        self.base, self.executable = str(found["base"]), str(found["executable"])
        self.place = os.path.join(self.base, "sweeps", sweep.key, self._name)
        self.folder = code.folder(self.base, str(found["home"]), self.place)
        if self._outputs is None:
            self._outputs = self._make_outputs()
        if self._bringing is None:
            # While the program there starts.
            self._bringing = Future()
            self._have_helped("code", self._bring, code, self._bringing)
        delivery = b""
        if not self._delivered:
            places = code.places(self.folder, sweep.directory, self.place)
            delivery = deploy.delivery(sweep.payload, places, self.folder, frozen=code.frozen)
        ours = wanted()
        folders = [os.path.join(".hsm", "results"), *ours["folders"], *([self.folder] if code.made_here else [])]
        return Visit({**ours, "sweep": self.place, "folders": folders}, delivery)

    def _make_outputs(self) -> Outputs:
        directory, pickles = self._sweep.directory, bool(self._config.trusted)
        parcels = Parcels(self.connection, deploy.command(self.base, self.executable, "parcel"), self.place)
        collector = Collector(self._transfers, parcels, self._name, self.place, directory, pickles=pickles)
        cleans = self._sweep.config.result_collection.cleanup_remote_on_success
        return Outputs(directory, self.place, collector, cleans=cleans)

    def _bring(self, code: Code, told: Future[Sequence[str]]) -> None:
        """Have the code there; `told` is what people should know of it, or why it is not there."""
        try:
            told.set_result(code.bring(self.connection, self._transfers, self.base, self.folder))
        except BaseException as e:
            told.set_exception(e)

    def look_at_code(self) -> None:
        """Have the next visit see to it that the code is there."""
        self._bringing = None

    def wait_for_code(self) -> None:
        """Return once the code is there. Raises HsmError where it can't be brought."""
        assert self._bringing is not None
        for words in self._bringing.result():
            self._post(Note("WARNING", words, source=self._name))

    # --- what goes there

    def late(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Those of which earlier attempts have left something here."""
        return [attempt for attempt in attempts if attempt.left is not None and os.path.isdir(attempt.left)]

    def send_after(self, late: Sequence[Attempt], submit: Callable[[Sequence[Attempt]], None]) -> None:
        """Bring there what earlier attempts left, and then submit those that are not taken back by then."""
        self._late.update(attempt.id for attempt in late)
        self._have_helped("push", self._push, late, submit)

    def _push(self, attempts: Sequence[Attempt], submit: Callable[[Sequence[Attempt]], None]) -> None:
        names = [os.path.relpath(str(attempt.left), self._sweep.directory) for attempt in attempts]
        try:
            self.connection.open()
            self._transfers.push(self.connection, self._sweep.directory, names, self.place)
        except SourceError as e:
            words = f"what earlier attempts left can't be brought there, they begin without it: {e}"
            self._post(Note("WARNING", words, source=self._name))
        with self._handing_over:
            wanted = [attempt for attempt in attempts if attempt.id in self._late]
            self._late.difference_update(attempt.id for attempt in wanted)
            submit(wanted)

    def take_back(self, attempts: Iterable[Attempt]) -> Set[str]:
        """The ids of those of these that were not submitted yet, and won't be."""
        with self._handing_over:
            late = self._late.intersection(attempt.id for attempt in attempts)
            self._late -= late
        return late

    # --- what comes from there

    def home(self, path: object) -> str | None:
        """A path in the sweep's directory there as it is here; None: it is none of a task's."""
        assert self._outputs is not None
        return self._outputs.home(path)

    def began(self, attempt_id: str, folder: str | None, missing: object) -> None:
        """Take note of where an attempt has its output, as it is called here, and of paths that it did not find."""
        assert self._outputs is not None
        self._book(attempt_id, partial(self._outputs.began, attempt_id, folder))
        for path in missing if isinstance(missing, list) else ():
            if isinstance(path, str) and os.path.exists(path):
                words = f"the configuration names what is on this machine only: {path!r}"
                self.tell_once(f"{words}. Put it there under the same name.")

    def outcome(self, attempt_id: str, record: object) -> Outcome:
        """What a record says that was read there; it is kept here, with paths as they are here, before that is told."""
        outcome = outcome_of(record, attempt_id)
        if outcome.record is None:
            return outcome
        assert isinstance(record, Mapping)
        assert self._outputs is not None
        moved = {key: self.home(record.get(key)) for key in ("output_dir", "working_dir")}
        pickled = record.get("pickle") if self._config.trusted else None
        self._keep(attempt_id, {**record, **moved, "pickle": pickled and f"{attempt_id}.pkl"})
        folder = moved["output_dir"]
        self._book(attempt_id, partial(self._outputs.ended, attempt_id, folder, completed=outcome.completed))
        return msgspec.structs.replace(outcome, output_dir=folder)

    def _book(self, attempt_id: str, note: Callable[[], None]) -> None:
        try:
            note()
        except (place.OutputDirectoryError, OSError) as e:
            self._post(Note("ERROR", f"what {attempt_id} left there is not brought: {e}", source=self._name))

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
                    self._post(Note("ERROR", f"{words}. It is tried again until there is room.", source=self._name))
                    told = True
                if self._done.wait(RETRY):
                    return

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """As `Source.collect`."""
        if self._outputs is not None:
            skipped, late = self._outputs.collect([attempt.id for attempt in attempts], self.connection)
            for words in skipped:
                self.tell_once(words)
            if late:
                raise Incomplete(f"{self.where}: {next(iter(late.values()))}", frozenset(late))

    def tell_once(self, words: str) -> None:
        """Warn of this, unless that was done before."""
        if words not in self._told:
            self._told.add(words)
            self._post(Note("WARNING", words, source=self._name))

    # --- the end

    def give_up_waiting(self) -> None:
        """Wait no longer for room on a full disk."""
        self._done.set()

    def clean(self) -> None:
        """Remove what is there of the sweep, if that is wanted and nothing of it is still to come home."""
        if self._outputs is not None:
            with contextlib.suppress(Unavailable):  # what stays is of no use, and of no harm
                self._outputs.close(self.connection)

    def part(self) -> None:
        """Hang up, and wait for the threads that notice that."""
        self._done.set()
        self.connection.close()
        for thread in self._helpers:
            thread.join(LAST_STEPS)
