"""Tasks on a cluster behind a scheduler, as job arrays, with the sweep directory on a disk that all its nodes share.

One thread does all that may take time. It hears of starts and ends from files (`hsm_core.remote.element`), and asks the
scheduler seldom: for what these files can't tell, that a job pends and why, or that it is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hsm_core.remote
from hsm_core.config import SourceConfig
from hsm_core.crashpoint import crashpoint
from hsm_core.events import Note, SourceDown, SourceUp
from hsm_core.exceptions import Rejected, SourceError, Unavailable
from hsm_core.preamble import preamble, words
from hsm_core.records import record_path, settle
from hsm_core.sources import environment
from hsm_core.sources.base import CommandResult, Post, Source, SweepContext
from hsm_core.sources.hpc import batch as batches
from hsm_core.sources.hpc.allowance import Allowance
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.needs import Needs
from hsm_core.sources.hpc.resources import of_source
from hsm_core.sources.hpc.scheduler import Full, Job, Scheduler, Unsure
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.sources.hpc.systems import scheduler_of
from hsm_core.sources.hpc.watch import Watch
from hsm_core.sources.hpc.words import reason_words
from hsm_core.sources.spec import spec
from hsm_core.space import why_unwritable
from hsm_core.task import Attempt, Cause, Outcome
from hsm_core.text import plural

GATHER = 0.3
"""seconds without another attempt after which a batch is complete"""
TICK = 0.2
"""seconds between two looks at what elements left"""
POLL = 10.0
"""seconds between two questions to the scheduler that are asked for no reason of their own"""
LONGEST_PAUSE = 60.0
"""seconds after a submission that failed; at first `POLL`, then twice as long each time, up to this"""
SLOTS = 256
"""attempts in the scheduler at a time, unless `max_parallel_tasks` says otherwise"""


class HpcSource(Source):
    type = "hpc"
    outlives_launcher = True
    program = "element"
    """which program of `hsm_core.remote` its jobs run"""

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._changed = threading.Condition()
        """guards the attempts that wait, and those that are watched"""
        self._waiting: list[Attempt] = []
        """attempts that go into the next batch"""
        self._gathered_at = self._not_before = 0.0
        """when the last of them came, and when the next batch may go out after one that did not"""
        self._pause = POLL
        self._unsure: list[Batch] = []
        """batches of which nobody knows whether they were submitted"""
        self._allowance = Allowance()
        self._poll_at = 0.0
        self._down = False
        self._reasons: Mapping[str, int] = {}
        """why jobs pend, and how many"""
        self._closed = False
        self._thread: threading.Thread | None = None

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        return SLOTS

    # --- the engine's side

    def start(self, sweep: SweepContext, post: Post) -> None:
        if "\n" in str(sweep.directory) or "%" in str(sweep.directory):
            bad = f"{self.name}: schedulers can't write to a directory with % or a line end in its name"
            raise SourceError(f"{bad}: {str(sweep.directory)!r}; name another hydra.sweep.dir")
        try:
            self._scheduler: Scheduler = scheduler_of(self.config)
            self._scheduler.start()
        except SourceError as e:
            raise SourceError(f"{self.name}: {e}") from e
        self._sweep, self._post = sweep, post
        self._top = sweep.directory / ".hsm" / "hpc" / self.name
        given, warnings = environment.given(self.config)
        for told in warnings:
            post(Note("WARNING", told, source=self.name))
        self._variables = {**given, "HSM_SWEEP_ID": sweep.id, "HSM_SWEEP_DIR": str(sweep.directory)}
        self._needs = Needs(of_source(self.config), self._scheduler.system, self._composed_from)
        self._watch = Watch(self.name, self._records, self._scheduler, post)
        self._thread = threading.Thread(target=self._serve, name=f"hsm-{self.name}", daemon=True)
        self._thread.start()

    def submit(self, attempts: Sequence[Attempt]) -> None:
        with self._changed:
            self._waiting += attempts
            self._gathered_at = time.monotonic()
            self._changed.notify_all()

    def attach(self, attempts: Sequence[Attempt]) -> None:
        left = batches.find(self._top)
        found = {attempt_id: batch for batch in left for attempt_id in batch.attempts}
        for batch in left:
            if all(record_path(self._records, attempt_id).exists() for attempt_id in batch.attempts):
                batch.remove()  # nobody was there when its last attempt ended
        with self._changed:
            ours = {attempt.id for attempt in self._waiting} | self._watch.elements.keys()
            for attempt in attempts:
                if attempt.id in ours:
                    continue
                if attempt.id not in found or record_path(self._records, attempt.id).exists():
                    self._post(settle(self._records, attempt, "it was never submitted"))
                    continue
                batch = self._watch.take(attempt, found[attempt.id])
                if batch.job is None and batch not in self._unsure:
                    self._unsure.append(batch)
            self._poll_at = 0.0
            self._changed.notify_all()

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        ids = {attempt.id for attempt in attempts}
        with self._changed:
            dropped = [attempt for attempt in self._waiting if attempt.id in ids]
            self._waiting = [attempt for attempt in self._waiting if attempt.id not in ids]
            self._watch.cancelled |= ids
            self._watch.unwanted |= ids
            for attempt in dropped:
                self._watch.finish(attempt, Outcome.failed(Cause.CANCELLED, "ended before it was submitted"))
            self._changed.notify_all()

    def collect(self, attempts: Sequence[Attempt]) -> None:
        """The output directories are in the sweep directory from the start."""

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Unavailable(f"{self.name}: {e}") from e
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def describe(self) -> Mapping[str, Any]:
        return {"system": self._scheduler.system}

    def stop(self, timeout: float = 10.0) -> None:
        if self._thread is None:
            return
        deadline = time.monotonic() + timeout
        with self._changed:
            left = [*self._waiting, *(element.attempt for element in self._watch.elements.values())]
        self.cancel(left)
        with self._changed:
            self._changed.wait_for(lambda: not self._watch.elements, max(0.0, deadline - time.monotonic()))
        self.leave(max(0.0, deadline - time.monotonic()))

    def leave(self, timeout: float = 10.0) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(timeout, 1.0))

    # --- the thread's side

    def _serve(self) -> None:
        coming: Sequence[Attempt] = ()
        while True:
            with self._changed:
                if not self._closed and not coming:
                    self._changed.wait(TICK if self._waiting or self._watch.elements else None)
                if self._closed:
                    return
                coming = self._needs.unknown(self._waiting)
                gathered = [] if coming else self._gathered()
                self._watch.hear()
                self._changed.notify_all()
            try:
                self._work_out(coming)
                if gathered:
                    self._hand_in(gathered)
                self._withdraw()
                self._ask()
            except (Unavailable, OSError) as e:
                self._poll_at = time.monotonic() + POLL
                if not self._down:
                    self._down = True
                    self._post(SourceDown(self.name, f"{self.name}: {e}. Its jobs go on there."))
            except SourceError as e:
                self._post(SourceDown(self.name, f"{self.name}: {e}", final=True))
                return

    def _work_out(self, attempts: Sequence[Attempt]) -> None:
        """Learn what some of these ask for; those that can't be submitted have ended."""
        for attempt, outcome in self._needs.work_out(attempts, TICK):
            with self._changed:
                if attempt in self._waiting:  # it may have been cancelled meanwhile
                    self._waiting.remove(attempt)
                    self._watch.finish(attempt, outcome)

    def _gathered(self) -> list[Attempt]:
        """The attempts of the next batch, if it is time for that; the caller has the lock."""
        most, now = self._scheduler.largest_array(), time.monotonic()
        if not self._waiting or now < self._not_before:
            return []
        taken = self._needs.equal(self._waiting, most)
        complete = len(taken) >= most or now - self._gathered_at >= self._gather
        if not complete or not self._allowance.take():
            return []
        ids = {attempt.id for attempt in taken}
        self._waiting = [attempt for attempt in self._waiting if attempt.id not in ids]
        return taken

    def _hand_in(self, attempts: Sequence[Attempt]) -> None:
        """Submit a batch, or have its attempts wait again."""
        try:
            specs = [spec(attempt, self._sweep.config) for attempt in attempts]
            made = batches.write(self._top, specs, self._shared(), self._needs.of(attempts[0]))
        except OSError as e:
            self._put_back(attempts)
            raise Unavailable(f"the batch can't be written: {why_unwritable(e, self._top)}") from e
        with self._changed:
            for attempt in attempts:
                self._watch.take(attempt, made)
        crashpoint("batch_written")
        try:
            job = self._scheduler.submit(self._job(made))
            crashpoint("array_submitted")
            made.submitted(job)
        except Rejected as e:
            with self._changed:
                for attempt in attempts:
                    self._watch.finish(attempt, Outcome.failed(Cause.REJECTED, f"{self.name}: {e}"))
        except Unsure:
            self._unsure.append(made)
            raise
        except Full as e:
            self._put_back(attempts)
            made.remove()
            self._post(Note("WARNING", f"no more jobs are taken now, {len(attempts)} wait: {e}", source=self.name))
        except Unavailable:
            self._put_back(attempts)
            made.remove()
            raise
        else:
            self._pause = POLL
            self._poll_at = time.monotonic() + POLL
            self._up()

    @property
    def _gather(self) -> float:
        return GATHER

    @property
    def _records(self) -> Path:
        return self._sweep.records

    @property
    def _composed_from(self) -> Path | None:
        """The payload by which tasks may say what they ask for; None: all ask for what the source says."""
        return self._sweep.payload

    def _shared(self) -> dict[str, Any]:
        """What all jobs are told, as JSON."""
        return {
            "payload": str(self._sweep.payload),
            "records": str(self._records),
            "requeue": self.config.requeue,
            "variables": self._variables,
        }

    def _job(self, made: Batch) -> Job:
        main = Path(hsm_core.remote.__file__).with_name("__main__.py")
        # A node's Python is that of the environment; without one, it is ours, on the shared disk.
        python = self.config.python or ("python3" if self.config.conda_env else sys.executable)
        lead = preamble(self.config, lambda problem: words(problem, self.config) or problem)
        return Job(
            token=made.token,
            folder=made.folder,
            command=[os.path.expanduser(python), "-u", str(main), self.program, str(made.folder)],
            lead=["hsm_problem() { printf '%s\\n' \"$1\" >&2; exit 1; }", *lead],
            count=len(made.attempts),
            resources=made.resources,
            # Once it was met, the scheduler may have forgotten the jobs that it names.
            dependency=None if self._watch.any_started else self._sweep.config.dependency,
            requeue=self.config.requeue,
        )

    def _put_back(self, attempts: Sequence[Attempt]) -> None:
        """The attempts of a batch that was not submitted wait for the next one."""
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        with self._changed:
            for attempt in attempts:
                self._watch.drop(attempt.id)
            kept = [attempt for attempt in attempts if attempt.id not in self._watch.cancelled]
            self._waiting[:0] = kept
            for attempt in attempts:
                if attempt not in kept:
                    self._watch.finish(attempt, Outcome.failed(Cause.CANCELLED, "ended before it was submitted"))

    def _up(self) -> None:
        if self._down:
            self._down = False
            self._post(SourceUp(self.name))

    def _withdraw(self) -> None:
        """Have the scheduler end what is to be cancelled, as far as it has that."""
        with self._changed:
            self._watch.unwanted &= self._watch.elements.keys()
            unwanted = [self._watch.elements[attempt_id] for attempt_id in self._watch.unwanted]
        named = [element for element in unwanted if element.batch.job is not None]
        if named:
            self._scheduler.cancel([self._watch.name(element) for element in named])
            self._watch.curious = True
        with self._changed:
            self._watch.unwanted -= {element.attempt.id for element in named}

    def _ask(self) -> None:
        """Ask the scheduler how things stand, if it is time for that."""
        if self._watch.curious:
            self._poll_at, self._watch.curious = 0.0, False
        if not self._watch.elements or time.monotonic() < self._poll_at or not self._allowance.take():
            return
        self._poll_at = time.monotonic() + POLL
        for batch in [*self._unsure]:
            self._look_for(batch)
        with self._changed:
            named = self._watch.submitted()
        if named:
            gone = [self._watch.name(e) for e in named if e.started or e.ended or e.gone_since is not None]
            states = self._scheduler.states({e.batch.token: e.batch for e in named}.values(), gone)
            with self._changed:
                for element in named:
                    self._watch.judge(element, states[self._watch.name(element)])
                self._changed.notify_all()
            self._tell_pending([states[self._watch.name(element)] for element in named])
        self._up()

    def _look_for(self, batch: Batch) -> None:
        """Find out whether a batch was submitted; if it was not, it never will be."""
        job = self._scheduler.find(batch.token)
        if job is not None:
            batch.submitted(job)
        else:
            batch.void()  # it may still be on its way to the scheduler
            with self._changed:
                for element in [e for e in self._watch.elements.values() if e.batch is batch and not e.started]:
                    event = settle(self._records, element.attempt, "it was never submitted")
                    self._watch.finish(element.attempt, event.outcome)
        self._unsure.remove(batch)

    def _tell_pending(self, states: Sequence[JobState]) -> None:
        """Say why jobs wait, each time there are other reasons."""
        reasons = Counter(reason_words(s.reason) for s in states if s.phase in (Phase.PENDING, Phase.HELD))
        if reasons.keys() - self._reasons.keys():
            told = "; ".join(f"{plural(count, 'job')}: {words}" for words, count in reasons.most_common(3))
            self._post(Note("INFO", f"pending in the scheduler: {told}", source=self.name))
        self._reasons = reasons
