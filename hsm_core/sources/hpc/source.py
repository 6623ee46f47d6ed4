"""Tasks on a cluster behind a scheduler, as job arrays.

The scheduler is asked on this machine, or on a login node that is reached by SSH (`host`); there the sweep has a
directory, on a disk that all nodes share. One thread does all that may take time. It hears of starts and ends from
files (`hsm_core.remote.element`), and asks the scheduler seldom: for what these files can't tell, that a job pends and
why, or that it is gone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.crashpoint import crashpoint
from hsm_core.events import Note, SourceDown, SourceUp
from hsm_core.exceptions import HsmError, Rejected, SourceError, Unavailable
from hsm_core.preamble import for_job
from hsm_core.records import settle
from hsm_core.sources import environment
from hsm_core.sources.base import CommandResult, Post, Source, SweepContext
from hsm_core.sources.hpc import batch as batches
from hsm_core.sources.hpc.allowance import Allowance, due
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.home import home_of
from hsm_core.sources.hpc.needs import Needs
from hsm_core.sources.hpc.overview import Overview
from hsm_core.sources.hpc.resources import of_source, plain
from hsm_core.sources.hpc.scheduler import Full, Job, Scheduler, Unsure
from hsm_core.sources.hpc.site import Lost
from hsm_core.sources.hpc.systems import scheduler_of
from hsm_core.sources.hpc.waiting import Waiting
from hsm_core.sources.hpc.watch import Watch
from hsm_core.sources.spec import spec
from hsm_core.task import Attempt, Cause, Outcome

log = logging.getLogger(__name__)

TICK = 0.2
"""seconds between two looks at what elements left"""
POLL = 10.0
"""seconds between two questions to the scheduler that are asked for no reason of their own"""
LAST_STEPS = 5.0
"""seconds that our thread has once there is no way to the scheduler any more"""
SLOTS = 256
"""attempts in the scheduler at a time, unless `max_parallel_tasks` says otherwise"""


class HpcSource(Source):
    type = "hpc"
    outlives_launcher = True
    program = "element"
    """which program of `hsm_core.remote` its jobs run"""

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._home = home_of(name, config)
        self._site = self._home.site
        self.shares_files = self._home.shared
        self._changed = threading.Condition()
        """guards the attempts that wait, and those that are watched"""
        self._left: list[Attempt] = []
        """attempts of an earlier launcher that are to be looked for"""
        self._poll_at = 0.0
        self._full = ""
        """why no more jobs were taken when that was last said; empty: they are"""
        self._down = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        return SLOTS

    # --- the engine's side

    def warm_up(self, directory: Path, sweep: HsmConfig, threads_per_task: int) -> None:
        self._home.warm_up(sweep)

    def start(self, sweep: SweepContext, post: Post) -> None:
        self._sweep, self._post = sweep, post
        try:
            self._home.find(sweep, post)
            directory = self._home.directory
            if "\n" in directory or "%" in directory:
                bad = "schedulers can't write to a directory with % or a line end in its name"
                raise SourceError(f"{bad}: {directory!r}; name another hydra.sweep.dir")
            self._scheduler: Scheduler = scheduler_of(self.config, self._site)
            self._scheduler.start()
            self._home.wait_for_code()
        except HsmError as e:
            self._home.part(ended=False)
            raise SourceError(self._about(e)) from e
        self._top = os.path.join(directory, ".hsm", "hpc", self.name)
        given, warnings = environment.given(self.config)
        for told in warnings:
            post(Note("WARNING", told, source=self.name))
        self._allowance = Allowance(lambda: self._scheduler.calls)
        self._overview = Overview(self.name, post)
        self._variables = {**given, "HSM_SWEEP_ID": sweep.id, "HSM_SWEEP_DIR": directory}
        self._needs = Needs(of_source(self.config), self._scheduler.system, self._composed_from)
        self._waiting = Waiting(self._needs)
        parts = (self._home, self._scheduler, post, self._changed)
        self._watch = Watch(self.name, self._records, *parts, requeue=self.config.requeue)
        self._thread = threading.Thread(target=self._serve, name=f"hsm-{self.name}", daemon=True)
        self._thread.start()

    def _about(self, what: object) -> str:
        """An error, or words on one, with the source's name and its address before it, once."""
        where = self._home.where
        return f"{where}: {str(what).removeprefix(f'{where}: ')}"

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._home.submit(attempts, self._have_wait)

    def _have_wait(self, attempts: Sequence[Attempt]) -> None:
        with self._changed:
            self._waiting.add(attempts)
            self._changed.notify_all()

    def attach(self, attempts: Sequence[Attempt]) -> None:
        with self._changed:
            self._left += attempts
            self._changed.notify_all()

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        ids = {attempt.id for attempt in attempts}
        late = self._home.take_back(attempts)
        with self._changed:
            dropped = self._waiting.drop(ids)
            self._watch.cancelled |= ids
            self._watch.unwanted |= ids
            self._changed.notify_all()
        for attempt in [*dropped, *(attempt for attempt in attempts if attempt.id in late)]:
            self._watch.finish(attempt, Outcome.failed(Cause.CANCELLED, "ended before it was submitted"))

    def collect(self, attempts: Sequence[Attempt]) -> None:
        self._home.collect(attempts)

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        done = self._site.run(command, self._site.environ, timeout)
        if done.code is None:
            raise Unavailable(f"{self.name}: {command[0]} did not end within {timeout:g} s")
        return CommandResult(done.code, done.out, done.err)

    def describe(self) -> Mapping[str, Any]:
        return {"system": self._scheduler.system, **self._home.facts()}

    def stop(self, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        if self._thread is not None and not self._closed:
            with self._changed:
                left = [*self._waiting.attempts, *(element.attempt for element in self._watch.elements.values())]
            self.cancel(left)
            with self._changed:
                self._changed.wait_for(lambda: not self._watch.elements, max(0.0, deadline - time.monotonic()))
        if self._down and not self.shares_files:
            log.warning("%s can't be told that the sweep ends. What runs there goes on.", self._home.where)
        self._part(deadline, ended=not self._down)

    def leave(self, timeout: float = 10.0) -> None:
        self._part(time.monotonic() + timeout, ended=False)

    def _part(self, deadline: float, *, ended: bool) -> None:
        self._home.hurry()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 1.0))
        self._home.part(ended=ended)
        if self._thread is not None:
            self._thread.join(LAST_STEPS)  # there is no answer from far away to wait for any more

    # --- the thread's side

    def _serve(self) -> None:
        coming: Sequence[Attempt] = ()
        while True:
            with self._changed:
                if not self._closed and not coming:
                    self._changed.wait(self._pause_until_next_look())
                if self._closed:
                    return
            try:
                self._watch.hear()
                self._take_over()
                with self._changed:
                    coming = self._needs.unknown(self._waiting.attempts)
                self._work_out(coming)
                if (made := self._next_batch()) is not None:
                    self._hand_in(*made)
                self._withdraw()
                self._ask()
            except (Unavailable, OSError) as e:
                if self._closed:
                    return
                coming = ()
                # One that is lost comes back by itself; how things stand is asked then.
                self._poll_at = 0.0 if isinstance(e, Lost) else time.monotonic() + POLL
                self._is_down(e)
            except SourceError as e:
                self._give_up(self._about(e))
                return
            except Exception as e:  # unheard, the sweep would wait for this source for ever
                log.exception("source %s: a fault of hsm", self.name)
                coming = ()
                self._is_down(f"a fault of hsm, it goes on after a while: {type(e).__name__}: {e}")
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, POLL)

    def _is_down(self, why: object) -> None:
        if not self._down:
            self._down = True
            self._post(SourceDown(self.name, f"{self._about(why)}. Its jobs go on there."))

    def _pause_until_next_look(self) -> float | None:
        """Seconds to wait if nothing happens here; None: as long as that is so. The caller has the lock."""
        if self._waiting.attempts or self._left or self._watch.elements or self._down:
            return max(TICK, self._site.lag)
        return None

    def _take_over(self) -> None:
        """Look for what an earlier launcher left, and watch it, or say how it has ended."""
        with self._changed:
            left, ours = [*self._left], {attempt.id for attempt in self._waiting.attempts} | self._watch.elements.keys()
        if left:
            self._watch.adopt([attempt for attempt in left if attempt.id not in ours], self._top)
            self._poll_at = 0.0
            with self._changed:
                del self._left[: len(left)]

    def _give_up(self, why: str) -> None:
        """This is the end of the source; its attempts have ended as what is here of them says: nothing more comes."""
        self._post(SourceDown(self.name, why, final=True))
        with self._changed:
            watched = [element.attempt for element in self._watch.elements.values()]
            left = [*self._waiting.attempts, *self._left, *watched]
            self._waiting.attempts, self._left = [], []
            self._watch.elements.clear()
            self._changed.notify_all()
        for attempt in {attempt.id: attempt for attempt in left}.values():
            self._post(settle(self._sweep.records, attempt, f"its source can't be used any more: {why}"))

    def _work_out(self, attempts: Sequence[Attempt]) -> None:
        """Learn what some of these ask for; those that can't be submitted have ended."""
        for attempt, outcome in self._needs.work_out(attempts, TICK):
            with self._changed:
                dropped = self._waiting.drop({attempt.id})
            for one in dropped:  # it may have been cancelled meanwhile
                self._watch.finish(one, outcome)

    def _next_batch(self) -> tuple[Batch, Sequence[Attempt]] | None:
        """One that is still to be written, if it is time for that, and its attempts, which are watched by now."""
        with self._changed:  # so that whoever looks for an attempt finds it waiting, or watched
            if self._needs.unknown(self._waiting.attempts):
                return None
            attempts = self._waiting.next(self._scheduler.largest_array(), self._due)
            overdue = bool(self._watch.elements) and time.monotonic() >= self._poll_at + POLL  # it comes first
            if not attempts or not self._allowance.free(2 if overdue else 1):
                return None
            made = batches.new(self._top, [attempt.id for attempt in attempts], self._needs.of(attempts[0]))
            for attempt in self._waiting.take(set(made.attempts)):
                self._watch.take(attempt, made)
            return made, attempts

    def _hand_in(self, made: Batch, attempts: Sequence[Attempt]) -> None:
        """Submit a batch, or have its attempts wait again."""
        try:
            specs = [spec(attempt, self._sweep.config) for attempt in attempts]
            what = {**self._shared(), "resources": plain(made.resources), "attempts": specs}
            self._site.write(made.folder, what)
            crashpoint("batch_written")
            made.job = self._scheduler.submit(self._job(made))
        except Rejected as e:
            for attempt in attempts:
                self._watch.finish(attempt, Outcome.failed(Cause.REJECTED, self._about(e)))
            return
        except Exception as e:
            if isinstance(e, (Unavailable, OSError)) and not isinstance(e, (Lost, Unsure)):
                self._take_back(made, attempts, e)
                return
            self._watch.unsure.append(made)  # whatever it was: the job may be there
            raise
        crashpoint("array_submitted")
        self._waiting.taken()
        self._full = ""
        if self._watch.is_alone(made):
            self._poll_at = time.monotonic() + POLL
        self._site.submitted(made.folder, made.job)
        self._up()

    def _due(self, alike: Sequence[Attempt], quiet: float, held: float) -> bool:
        """Whether these, which ask for the same, go out now; the caller has the lock."""
        pending = self._watch.pending(self._needs.of(alike[0]))
        return due(len(alike), self._scheduler.largest_array(), pending, quiet, held)

    @property
    def _records(self) -> str:
        return os.path.join(self._home.directory, ".hsm", "results")

    @property
    def _composed_from(self) -> Path | None:
        """The payload by which tasks may say what they ask for; None: all ask for what the source says."""
        return self._sweep.payload

    def _shared(self) -> dict[str, Any]:
        """What all jobs are told, as JSON."""
        return {
            "payload": os.path.join(self._home.directory, ".hsm", self._sweep.payload.name),
            "records": self._records,
            "manifests": not self.shares_files,
            "requeue": self.config.requeue,
            "variables": self._variables,
        }

    def _job(self, made: Batch) -> Job:
        return Job(
            token=made.token,
            folder=made.folder,
            command=[*self._home.interpreter, self.program, made.folder],
            lead=for_job(self.config),
            count=len(made.attempts),
            resources=made.resources,
            # Once it was met, the scheduler may have forgotten the jobs that it names.
            dependency=None if self._watch.any_started else self._sweep.config.dependency,
            requeue=self.config.requeue,
            signal_delay=self.config.signal_delay,
        )

    def _take_back(self, made: Batch, attempts: Sequence[Attempt], why: Unavailable | OSError) -> None:
        """The attempts of a batch that was not submitted wait for the next one. Raises Unavailable, but for Full."""
        try:
            self._site.remove(made.folder)
        except Lost:  # it is there still, and a later launcher would find it
            self._watch.unsure.append(made)
            raise
        with self._changed:
            for attempt in attempts:
                self._watch.drop(attempt.id)
            kept = [attempt for attempt in attempts if attempt.id not in self._watch.cancelled]
            self._waiting.put_back(kept)
        for attempt in attempts:
            if attempt not in kept:
                self._watch.finish(attempt, Outcome.failed(Cause.CANCELLED, "ended before it was submitted"))
        if isinstance(why, OSError):
            raise Unavailable(f"the batch can't be written: {self._home.unwritable(why, self._top)}") from why
        if not isinstance(why, Full):
            raise why
        if str(why) != self._full:
            self._full = str(why)
            self._post(Note("WARNING", f"no more jobs are taken now, {len(kept)} wait: {why}", source=self.name))

    def _up(self) -> None:
        if self._down:
            self._down = False
            self._post(SourceUp(self.name))

    def _withdraw(self) -> None:
        """Have the scheduler end what is to be cancelled, as far as it has that."""
        if self._down and time.monotonic() < self._poll_at:
            return
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
            self._poll_at, self._watch.curious = min(self._poll_at, time.monotonic()), False
        if not self._watch.elements:
            self._overview.tell(())
        asked = self._watch.elements or self._down
        if not asked or time.monotonic() < self._poll_at or not self._allowance.free():
            return
        self._poll_at = time.monotonic() + POLL
        self._watch.look_for_unsure()
        named = self._watch.submitted()
        if named:
            gone = [self._watch.name(e) for e in named if e.started or e.ended or e.gone_since is not None]
            states = self._scheduler.states({e.batch.token: e.batch for e in named}.values(), gone)
            self._watch.judge_all(states)
            self._overview.tell([states[self._watch.name(element)] for element in named])
        elif self._down:
            self._scheduler.start()
        self._up()
