"""Real sessions over sources that only write files: a whole sweep, or a launcher to kill, for some 50 ms.

Directory, owner, payload, journal, engine, listeners and reports are the real ones. Instead of running a
task a source writes what a task leaves: its files, then its result record.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from hsm_core import crashpoint
from hsm_core import events as ev
from hsm_core.audit import gather, judge, read_account
from hsm_core.config import ComputeConfig, HsmConfig
from hsm_core.debris import finish_closing
from hsm_core.exceptions import SweepStopped
from hsm_core.journal import replay
from hsm_core.lanes import Lane, Lanes
from hsm_core.multirun import Multirun
from hsm_core.opening import open_session
from hsm_core.owner import current
from hsm_core.records import settle
from hsm_core.remote.names import task_name
from hsm_core.remote.record import put
from hsm_core.resume import left_to_run
from hsm_core.sources.base import Post, SweepContext
from hsm_core.state import SweepState
from hsm_core.strategies import load_strategy
from hsm_core.task import Attempt, Cause
from tests.unit.fake_source import DONE, FakeSource, failed

COUNT = 6
RAISES_ONCE, RAISES = 2, 4
"""tasks that fail the first time they run, and always"""
ENDS = {index: "failed" if index == RAISES else "completed" for index in range(COUNT)}


class FileSource(FakeSource):
    """Attempts end as soon as they are submitted. Those in `living` are found running by `attach`, and end then."""

    def __init__(self, name: str, slots: int, living: Collection[str] = ()) -> None:
        super().__init__(name, slots)
        self._living = living

    def start(self, sweep: SweepContext, post: Post) -> None:
        super().start(sweep, post)
        self._sweep = sweep

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            begin(self._sweep.directory, attempt)
            self.post(ev.AttemptStarted(attempt.task.index, attempt.number, attempt.epoch, self.name, host="here"))
            self._end(attempt)

    def attach(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.id in self._living:
                self._end(attempt)
            else:
                self.post(settle(self._sweep.records, attempt, "its launcher is gone"))

    def _end(self, attempt: Attempt) -> None:
        end(self._sweep.directory, attempt)
        self.post(settle(self._sweep.records, attempt, "it left no record"))


def begin(directory: Path, attempt: Attempt) -> None:
    """What an attempt leaves that has begun."""
    folder = directory / str(attempt.task.index)
    folder.mkdir(exist_ok=True)
    with open(folder / "starts", "a") as file:
        file.write(f"{attempt.id}\n")


def end(directory: Path, attempt: Attempt) -> None:
    """What an attempt leaves that has ended."""
    folder = directory / str(attempt.task.index)
    first = (folder / "starts").read_text().split()[0] == attempt.id
    raises = attempt.task.index == RAISES or (attempt.task.index == RAISES_ONCE and first)
    outcome = failed(Cause.ERROR, "ValueError: no") if raises else DONE
    if outcome.completed:
        (folder / "result.txt").write_text(attempt.id)
    record = {"format": 1, "task": attempt.task.index, "attempt": attempt.number, "epoch": attempt.epoch}
    told = {"status": outcome.status.value, "cause": outcome.cause and outcome.cause.value, "message": outcome.message}
    put(str(directory / f".hsm/results/{attempt.id}.json"), {**record, **told, "output_dir": str(folder)})


def run_forked(action: Callable[[], object], said: Path) -> int:
    """Do something in a fork of this process; returns its exit code, negative for a signal.

    What it prints is added to the file `said`, the traceback too with which it ends with exit code 1.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(said, "a", buffering=1)  # noqa: SIM115 - it ends with the process
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cache
def _composed() -> tuple[DictConfig, HydraContext]:
    GlobalHydra.instance().clear()
    try:
        search_path = create_automatic_config_search_path(__file__, None, None)
        loader = Hydra.create_main_hydra2("app", search_path).config_loader
        config = loader.load_configuration(None, ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        return config, HydraContext(config_loader=loader, callbacks=Callbacks(config))
    finally:
        GlobalHydra.instance().clear()


def task_function(config: object) -> None:
    """Stands for the app's; it is never called."""


class SessionRig:
    """One sweep directory, and launchers on it one after the other."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.directory = folder / "sweep"
        self.journal = self.directory / ".hsm" / "journal.jsonl"
        self._said = folder / "said"
        self._composed = _composed()
        self.in_vain: set[str] = set()
        """attempts that began, and left no record"""
        self._config = HsmConfig(compute=ComputeConfig(retry_attempts=1, retry_delay=0.0), **settings)

    def launch(self, living: Collection[str] = (), **settings: Any) -> SweepState:
        """Be a launcher, from the opening of the sweep to its end; returns the state it had then."""
        sources = [FileSource("a", 2, living), FileSource("b", 1, living)]
        strategy = load_strategy("round_robin", seed=None, base=self.directory)
        lanes = Lanes({source.name: Lane(source, 1.0, 50) for source in sources}, strategy)
        config = dataclasses.replace(self._config, **settings)
        hydra_config, context = self._composed
        hydra_config.hydra.sweep.dir = str(self.directory)
        session = open_session(config, lanes, Multirun.of(hydra_config, context, task_function), ())
        try:
            session.run([[f"+x={index}"] for index in range(COUNT)], 0)
        except SweepStopped as e:
            session.close(e)
        else:
            session.close()
        return session.state

    def go_on(self, living: Collection[str] = (), **settings: Any) -> None:
        """Do what `hsm complete` does; where no sweep had begun, launch it anew."""
        if not self.has_begun():
            self.launch(living, **settings)
        elif left_to_run(replay(self.journal).state, bool(settings.get("retry_failed")), None):
            self.launch(living, resume=True, **settings)
        else:
            finish_closing(self.directory)

    def crash(self, point: str, launcher: Callable[[], object]) -> bool:
        """Have a launcher die at a point; False where it came to its end without passing that."""

        def run() -> None:
            crashpoint.arm(point)
            launcher()

        code = run_forked(run, self._said)
        assert code in (0, -signal.SIGKILL), self.said()
        return code != 0

    def said(self) -> str:
        return self._said.read_text()

    def has_begun(self) -> bool:
        return self.journal.exists() and b"\n" in self.journal.read_bytes()

    def finished(self) -> dict[int, int]:
        """Tasks that left a record of their completion, and when their results were written."""
        found = {}
        for path in self.directory.glob("*/result.txt"):
            if (self.directory / f".hsm/results/{path.read_text()}.json").exists():
                found[int(path.parent.name)] = path.stat().st_mtime_ns
        return found

    def check(self) -> None:
        """What holds once a launcher has come to its end, whatever happened to those before."""
        account = read_account(self.journal)
        state = account.state
        assert judge(account, gather(self.directory, state), self.directory) == []
        assert {index: task.state.value for index, task in state.tasks.items()} == ENDS
        assert {index: len(attempts) for index, attempts in account.accepted.items()} == dict.fromkeys(ENDS, 1)
        counts = Counter(task.state for task in state.tasks.values())
        assert {of: count for of, count in state.counts.items() if count} == counts
        for index in ENDS:
            starts = (self.directory / str(index) / "starts").read_text().split()
            left = [attempt for attempt in starts if (self.directory / f".hsm/results/{attempt}.json").exists()]
            assert set(starts) - set(left) <= self.in_vain
            raised = index == RAISES or (index == RAISES_ONCE and starts[0] in left)
            assert len(left) == len(set(left)) == (2 if raised else 1), "what left a record is not run again"
        owner = current(self.directory / ".hsm")
        assert owner is not None
        assert owner.released
        with open(self.directory / "reports" / "results.csv") as file:
            rows = [(row["task"], row["status"]) for row in csv.DictReader(file)]
        assert sorted(rows) == [(task_name(index), status) for index, status in ENDS.items()]
        assert len(list((self.directory / "errors").iterdir())) == 1
        assert (self.directory / "reports" / "source_utilization.html").stat().st_size > 0
