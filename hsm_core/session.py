"""One launcher's hold on one sweep: from its first line in the journal to giving the directory back.

A sweeper may call `launch` many times; the session, its journal and its sources last from the
first call to the end of the multirun.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from hsm_core import events as ev
from hsm_core import reports
from hsm_core.config import HsmConfig
from hsm_core.control import Spool
from hsm_core.crashpoint import crashpoint
from hsm_core.debris import remove_half_written
from hsm_core.ending import CLEARANCE
from hsm_core.engine import Engine
from hsm_core.exceptions import Superseded, SweepInterrupted, SweepStopped
from hsm_core.fail_fast import FailureLimit
from hsm_core.journal import Journal
from hsm_core.lanes import Lanes
from hsm_core.launcher_log import log_path
from hsm_core.listeners.error_files import ErrorFiles
from hsm_core.listeners.logs import LogTree
from hsm_core.listeners.progress import Progress
from hsm_core.listeners.results_table import ResultsTable
from hsm_core.listeners.stream import Stream
from hsm_core.owner import Owner
from hsm_core.points import Points
from hsm_core.remote.marks import end_processes
from hsm_core.results import ReturnContext, TaskReturn
from hsm_core.resume import plan_words
from hsm_core.signals import Signal, Signals
from hsm_core.sources.base import SweepContext
from hsm_core.state import SweepState
from hsm_core.sweepers import after_a_resume, launches_once
from hsm_core.sync import ResultSync
from hsm_core.task import Attempt, Task, TaskState, task_indices
from hsm_core.text import plural

log = logging.getLogger(__name__)


class Session:
    """An open sweep. Made by `hsm_core.opening.open_session`; `close` gives the directory back."""

    def __init__(
        self,
        config: HsmConfig,
        directory: Path,
        journal: Journal,
        owner: Owner,
        state: SweepState,
        lanes: Lanes,
        returns: ReturnContext,
        signals: Signals,
        hydra_config: DictConfig,
    ) -> None:
        self.directory = directory
        self.state = state
        self._config = config
        self._journal = journal
        self._owner = owner
        self._lanes = lanes
        self._returns = returns
        self._signals = signals
        self._resumed = state.started is not None
        self._sweeper = after_a_resume(hydra_config)
        self._once = launches_once(hydra_config)
        self._points = Points(state.tasks, bool(config.gpus_per_task))
        self._only = None if config.tasks is None else task_indices(config.tasks)
        self._closed = False
        self._shown = _shown(config, directory)
        kept = ResultsTable(directory), ErrorFiles(directory), LogTree(directory, config.logging)
        self._listeners = [*kept, *self._shown]
        self._spool = Spool(directory / ".hsm")
        self._log = log_path(directory / ".hsm", owner.epoch)
        records = directory / ".hsm" / "results"
        failures = FailureLimit(config.fail_fast, all_known=self._once)
        self._sync = ResultSync(config, lanes, state, lambda event: self._engine.post(event))
        listeners = [*self._listeners, self._sync]
        self._engine = Engine(
            config, state, journal, owner, lanes, self._spool, records, listeners, failures, self._sync.busy
        )

    @property
    def id(self) -> str:
        return self.state.id

    def start(self, first: ev.SweepStarted | ev.SweepResumed, sweep: SweepContext, changes: Iterable[ev.Event]) -> None:
        """Write the first lines of this launcher and start every source, each in its own thread."""
        self._engine.record(first)
        for change in changes:
            self._engine.record(change)
        self._journal.sync()
        crashpoint("begun")
        if self._resumed:
            self._take_over()
        self._engine.start(sweep)
        crashpoint("sources_starting")

    def run(self, job_overrides: Sequence[Sequence[str]], first_index: int) -> list[JobReturn]:
        """Run these jobs; the result has one JobReturn for each, in their order.

        Raises SweepStopped when the sweep was stopped before all of them ended. Jobs which
        `tasks` leaves out, and which did not end before, have no JobReturn.
        """
        order: list[int] = []
        with self._signals.heard_by(self._signalled):
            self._engine.record(ev.TasksPlanned(len(job_overrides)))
            asked: Iterable[Task] = self._points.tasks(job_overrides, first_index)
            if self._resumed:
                asked = self._resume(list(asked))
            self._engine.run(self._to_run(asked, order))
        ended = (self.state.tasks[index] for index in order if index in self.state.tasks)
        return [TaskReturn(task, self._returns) for task in ended if task.state.terminal]

    def close(self, why: SweepStopped | None = None) -> None:
        """End the sweep: part from the sources, write the reports, give up the directory. Idempotent.

        `why`: what ended it before its tasks did. Those that still run get their grace time, or
        none where an interrupt says so. A signal that comes meanwhile shortens that; unless the
        sweep was interrupted anyway it has its usual effect once all is closed. When another
        launcher has taken the sweep over, that is told, and nothing is written; what can't be
        written for other reasons is told.
        """
        if self._closed:
            return
        self._closed = True
        if why is None and self._signals.struck:
            why = SweepInterrupted.by(self._signals.struck)
        self._engine.scribe.ending = why
        interrupt = why if isinstance(why, SweepInterrupted) else None
        at_once = interrupt is not None and interrupt.at_once
        part = partial(self._part_with, leave=interrupt is not None and interrupt.leave)
        late = self._part(part, 0.0 if at_once else self._config.grace + CLEARANCE)
        crashpoint("sources_stopped")
        steps = [
            *([self._tell_left] if interrupt is not None and interrupt.leave else []),
            *([self._tell_unasked] if why is None else []),
            self._tell_collected,
            partial(self._engine.record, self._last_line(why)),
            partial(crashpoint, "end_journaled"),
            self._journal.sync,
            partial(crashpoint, "end_synced"),
            *(listener.close for listener in self._listeners),
            partial(reports.write_reports, self.directory),
            partial(crashpoint, "reports_written"),
            self._tidy,
            partial(crashpoint, "tidied"),
        ]
        try:
            for step in steps:
                _attempted(step)
        except Superseded as e:
            log.error("%s", e)
            self.leave_terminal()
        finally:
            _attempted(self._journal.close)
            crashpoint("journal_closed")
            _attempted(self._owner.release)
            crashpoint("released")
            kept = self._signals.give_back()
        if interrupt is None and (late or kept):
            os.kill(os.getpid(), late or kept)

    def _last_line(self, why: SweepStopped | None) -> ev.SweepFinished:
        if why is not None:
            return ev.SweepFinished(why.status, str(why), why.exit_code)
        failed = self.state.counts[TaskState.FAILED] > 0 and self._config.raise_on_failure
        return ev.SweepFinished("finished", exit_code=1 if failed else 0)

    def abandon(self) -> None:
        """Part from the sources and write nothing: another launcher owns the sweep now."""
        self._closed = True
        self._lanes.leave(0.0)
        self.leave_terminal()
        self._journal.close()
        self._signals.give_back()

    def leave_terminal(self) -> None:
        """Show nothing more."""
        for shown in self._shown:
            shown.close()

    def _tidy(self) -> None:
        if not self.state.active:
            remove_half_written(self.directory)

    def _part(self, part: Callable[[float], None], timeout: float) -> int:
        """Stop or leave the sources; returns the signal that came meanwhile, 0 if none did."""
        came: list[int] = []

        def hurry(signum: int) -> None:
            if signum != signal.SIGHUP:
                came.append(signum)
                raise KeyboardInterrupt

        try:
            with self._signals.heard_by(hurry):
                part(timeout)
        except KeyboardInterrupt:
            part(0.0)
        return came[0] if came else 0

    def _signalled(self, signum: int) -> None:
        if signum != signal.SIGHUP:
            self._engine.post(Signal(signum))
            return
        words = f"the launcher goes on without its terminal; what it prints goes to {self._log}"
        if not self._log.exists():
            words = f"the launcher goes on without its terminal; what it prints is lost, {self._log} can't be written"
        self._engine.post(ev.Note("WARNING", words))

    def _part_with(self, timeout: float, leave: bool) -> None:
        """Bring home what has ended, and part from the sources."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._sync.busy():
            time.sleep(0.02)
        self._sync.close()
        # Whatever can't be written, the sources are parted from; that another launcher has the sweep is told by the
        # next line that is to be written.
        with contextlib.suppress(Superseded):
            _attempted(self._engine.drain)
        (self._lanes.leave if leave else self._lanes.stop)(timeout)

    def _tell_collected(self) -> None:
        """Journal what came home from where."""
        for source, collected, left in self._sync.tally():
            if collected:
                words = f"the output of {plural(collected, 'task')} came home"
                self._engine.record(ev.Note("INFO", words, source=source.name))
            if left:
                words = f"the output of {plural(left, 'task')} is not home yet; hsm complete {self.id} brings it"
                self._engine.record(ev.Note("WARNING", words, source=source.name))

    def _tell_unasked(self) -> None:
        """Journal how many known tasks a sweeper that chooses its points did not ask for again."""
        if self._resumed and not self._once and self._points.unasked:
            words = f"{plural(self._points.unasked, 'known task')} did not come up again and stay as they are"
            self._engine.record(ev.Note("INFO", words))

    def _tell_left(self) -> None:
        """Journal how many tasks go on without a launcher."""
        for source in self._lanes:
            count = self.state.sources[source.name].active if source.name in self.state.sources else 0
            if count and source.outlives_launcher:
                words = f"{plural(count, 'task')} left running on {source.name}; hsm complete {self.id} takes over"
                self._engine.record(ev.Note("WARNING", words, source=source.name))

    def _to_run(self, asked: Iterable[Task], order: list[int]) -> Iterator[Task]:
        """Those of the tasks that are to be run, as the engine asks for them; `order` gets every task's index."""
        for task in asked:
            order.append(task.index)
            known = self.state.tasks.get(task.index)
            if not self._wanted(task.index):
                if known is None:  # its number is given, so the journal must know
                    self._engine.record(ev.TaskAdded(task.index, task.key, task.overrides))
            elif known is None or not known.state.terminal:
                yield task

    def _wanted(self, index: int) -> bool:
        return self._only is None or index in self._only

    def _resume(self, asked: list[Task]) -> list[Task]:
        """Match what is asked for with what is known: reopen failed tasks if they are wanted, and say what will be."""
        for task in asked:
            known = self.state.tasks.get(task.index)
            failed = known is not None and known.state is TaskState.FAILED
            if failed and self._config.retry_failed and self._wanted(task.index):
                self._engine.record(ev.TaskReopened(task.index))
        crashpoint("reopened")
        if self._once:
            words = plan_words(self.state, asked, self._wanted, self._points.unasked)
            self._engine.record(ev.Note("INFO", words))
        return asked

    def _take_over(self) -> None:
        """Settle what an earlier launcher left: its processes here, its attempts, commands to it."""
        if self._journal.cut is not None:
            words = f"the journal ended in the middle of a line; what was cut off is in {self._journal.cut}"
            self._engine.record(ev.Note("WARNING", words))
        end_processes(f"{self.directory}:", below=self._owner.epoch)
        crashpoint("processes_ended")
        for command in self._spool.poll():
            words = "the launcher it was meant for is gone"
            self._engine.record(ev.CommandDone(command.id, command.command, False, words))
            crashpoint("command_answered")
            self._spool.done(command)
        if self._sweeper is not None:
            self._engine.record(ev.Note("WARNING", self._sweeper))
        self._engine.adopt(self._left_active())
        crashpoint("adopted")

    def _left_active(self) -> dict[str, list[Attempt]]:
        left: dict[str, list[Attempt]] = {}
        for task in self.state.tasks.values():
            if task.state.active and task.attempt is not None:
                last = task.attempt
                again = Task(task.index, task.overrides, task.key, bool(self._config.gpus_per_task))
                limits = self._config.timeout, self._config.grace
                attempt = Attempt(again, last.number, last.epoch, last.source, *limits)
                left.setdefault(last.source, []).append(attempt)
        return left


def _shown(config: HsmConfig, directory: Path) -> list[Any]:
    """The listeners that write to the terminal, not into the sweep's directory."""
    progress = Progress(directory, level=config.logging.level)
    return [progress, Stream()] if config.stream else [progress]


def _attempted(step: Callable[[], None]) -> None:
    """Take a step of closing a sweep; one that the disk does not allow is told, and the others follow."""
    try:
        step()
    except (OSError, SweepStopped) as e:
        log.error("Not all of the sweep's end is written: %s", e.__cause__ or e)
