"""The engine and its journal alone: a sweep over a source that answers at once, appends, and a replay.

    python benchmarks/engine.py [--tasks 10000] [--events 1000000] [--slots 1,4,64] [--folder FOLDER]

Engine, journal, owner, control spool, listeners and reports are those of every launcher, only the
tasks are missing. Its files go to a temporary folder in FOLDER, which should be on
the disk that sweeps are on (/tmp may be memory). Times are of the wall clock.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsm_core import events as ev
from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.control import Spool
from hsm_core.engine import Engine
from hsm_core.journal import Journal, replay
from hsm_core.lanes import Lane, Lanes
from hsm_core.listeners.error_files import ErrorFiles
from hsm_core.listeners.logs import LogTree
from hsm_core.listeners.progress import Progress
from hsm_core.listeners.results_table import ResultsTable
from hsm_core.owner import Owner
from hsm_core.reports import write_reports
from hsm_core.sources.base import Source, SweepContext
from hsm_core.state import SweepState
from hsm_core.strategies import RoundRobin
from hsm_core.task import Attempt, Outcome, Task, TaskState, task_key

STARTED = ev.SweepStarted(
    id="sweep_20260115_143022",
    format=ev.FORMAT,
    hsm="0",
    python="3",
    hydra="1",
    cwd="/",
    argv=("python", "train.py", "-m"),
    app="train",
    host="host",
    pid=1,
)
FOLDER = "/home/user/project/sweeps/outputs/sweep_20260115_143022/tasks"


class AtOnce(Source):
    """Every attempt completes while it is submitted."""

    type = "local"

    def start(self, sweep: SweepContext, post: Any) -> None:
        self._post = post

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            for event in life(attempt.task.index, attempt.number, attempt.epoch, self.name):
                self._post(event)

    def attach(self, attempts: Sequence[Attempt]) -> None: ...
    def cancel(self, attempts: Sequence[Attempt]) -> None: ...
    def collect(self, attempts: Sequence[Attempt]) -> None: ...
    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> Any: ...
    def stop(self, timeout: float = 10.0) -> None: ...


def life(task: int, attempt: int, epoch: int, source: str) -> tuple[ev.AttemptStarted, ev.AttemptFinished]:
    """What a source posts of an attempt that completes."""
    which, folder = (task, attempt, epoch, source), f"{FOLDER}/task_{task + 1:03d}"
    outcome = Outcome(
        status=TaskState.COMPLETED,
        exit_code=0,
        duration=1.25,
        peak_memory=85.5,
        host="host",
        output_dir=folder,
        return_value=0.5,
        record=f".hsm/results/task_{task + 1:03d}.{attempt}.{epoch}.json",
    )
    return ev.AttemptStarted(*which, "host", 4711, folder), ev.AttemptFinished(*which, outcome)


def sweep(directory: Path, tasks: int, slots: int) -> tuple[float, float]:
    """Seconds of running the tasks, and of closing the sweep."""
    hsm = directory / ".hsm"
    (hsm / "results").mkdir(parents=True)
    config, owner = HsmConfig(), Owner.acquire(hsm)
    lanes = Lanes({"local": Lane(AtOnce("local", SourceConfig("local"), slots), 1.0, 50)}, RoundRobin())
    journal = Journal.create(hsm / "journal.jsonl")
    listeners = ResultsTable(directory), ErrorFiles(directory), LogTree(directory, config.logging), Progress(directory)
    engine = Engine(config, SweepState(), journal, owner, lanes, Spool(hsm), hsm / "results", listeners)
    engine.record(STARTED)
    engine.start(SweepContext(STARTED.id, STARTED.id, directory, owner.epoch, hsm, config, 1))
    jobs = [(f"lr=0.{number}", "model=small") for number in range(tasks)]
    began = time.perf_counter()
    engine.run(Task(index, overrides, task_key(overrides)) for index, overrides in enumerate(jobs))
    ran = time.perf_counter()
    engine.record(ev.SweepFinished("finished"))
    journal.close()
    for listener in listeners:
        listener.close()
    write_reports(directory)
    return ran - began, time.perf_counter() - ran


def history(tasks: int) -> list[ev.Event]:
    """The events of this many tasks that complete."""
    events: list[ev.Event] = [STARTED, ev.SourceStarted("local", "local", 4), ev.TasksPlanned(tasks)]
    for task in range(tasks):
        events += [ev.TaskAdded(task, f"{task:016x}", (f"lr=0.{task}", "model=small"))]
        events += [ev.AttemptSubmitted(task, 1, 1, "local"), *life(task, 1, 1, "local")]
    return events


def append(path: Path, events: Sequence[ev.Event], group: int) -> float:
    """Seconds of appending the events, synced after every `group` of them; 0: at the end only."""
    journal = Journal.create(path)
    began = time.perf_counter()
    for number, event in enumerate(events, start=1):
        journal.append(event)
        if group and number % group == 0:
            journal.sync()
    journal.close()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--slots", default="1,4,64", help="sizes of the source to try, separated by commas")
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    options = parser.parse_args()
    rows: list[tuple[str, int, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for slots in map(int, options.slots.split(",")):
            with contextlib.redirect_stderr(io.StringIO()):
                ran, closed = sweep(folder / f"sweep_{slots}", options.tasks, slots)
            rows.append((f"tasks, {slots} slots", options.tasks, ran))
            rows.append(("  closing the sweep", options.tasks, closed))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        events = history(options.events // 4)
        rows.append(("events appended", len(events), append(folder / "unsynced", events, 0)))
        for group in (1, 100):
            some = events[: 2000 * group]
            rows.append((f"  synced by {group}", len(some), append(folder / f"by_{group}", some, group)))
        del events, some
        began = time.perf_counter()
        read = replay(folder / "unsynced")
        rows.append(("events replayed", read.seq, time.perf_counter() - began))
    print(f"Python {sys.version.split()[0]}, in {options.folder}; {peak / 1024:.0f} MB at most after the sweeps")
    print(f"{'':24} {'count':>9} {'seconds':>8} {'per second':>11}")
    for what, count, seconds in rows:
        print(f"{what:24} {count:9} {seconds:8.2f} {count / seconds:11.0f}")


if __name__ == "__main__":
    main()
