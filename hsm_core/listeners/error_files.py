"""`errors/task_023_error.txt`: one file for every failed task, written when it fails.

A launcher that goes on with a sweep first writes what the one before did not live to write.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

from hsm_core import events as ev
from hsm_core.event_text import ended
from hsm_core.remote.names import task_name
from hsm_core.state import SweepState, TaskRecord
from hsm_core.task import Outcome, TaskState
from hsm_core.task_files import STDERR, STDOUT, output_folder, tail, traceback_text
from hsm_core.text import duration, printable, stamp
from hsm_core.whole_file import write_whole


class ErrorFiles:
    """Keeps one file in `errors/` for each task that is failed; a task that is run again loses its file.

    What could not be written, to a full disk, is tried again with the next event.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unwritten: dict[int, str] = {}

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if isinstance(event, ev.SweepResumed):
            self._catch_up(state)
        if isinstance(event, ev.TaskReopened):
            self._unwritten.pop(event.task, None)
            error_path(self._directory, event.task).unlink(missing_ok=True)
        task = ended(event, state)
        if task is not None:
            self._note(task, at)
        if isinstance(event, ev.ResultsCollected):  # what it printed is here now
            for index, _, _ in event.attempts:
                known = state.tasks[index]
                if known.attempt is not None and known.attempt.ended_at is not None:
                    self._note(known, known.attempt.ended_at)
        self._write()

    def _catch_up(self, state: SweepState) -> None:
        """Write what an earlier launcher did not live to write, and remove what no longer holds."""
        there = {path.name for path in (self._directory / "errors").glob("*_error.txt")}
        for task in state.tasks.values():
            path = error_path(self._directory, task.index)
            if task.state is not TaskState.FAILED and path.name in there:
                path.unlink(missing_ok=True)
            elif task.attempt is not None and task.attempt.ended_at is not None and path.name not in there:
                self._note(task, task.attempt.ended_at)

    def _note(self, task: TaskRecord, at: float) -> None:
        if task.outcome is not None and not task.outcome.completed:
            self._unwritten[task.index] = "\n".join(error_text(self._directory, task, at)) + "\n"

    def close(self) -> None:
        """All files are written."""
        self._write()

    def _write(self) -> None:
        for task, text in list(self._unwritten.items()):
            write_whole(error_path(self._directory, task), text)
            del self._unwritten[task]


def error_path(directory: Path, task: int) -> Path:
    """Where the error file of a task is, or would be."""
    return directory / "errors" / f"{task_name(task)}_error.txt"


def signal_name(number: int) -> str:
    """`11 (SIGSEGV)`; the bare number where it has no name here."""
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def error_text(directory: Path, task: TaskRecord, at: float) -> Iterator[str]:
    """All that is known of a failed task's last attempt, in escaped lines."""
    outcome, attempt = task.outcome, task.attempt
    assert outcome is not None and attempt is not None, "only an ended task has an error file"
    yield f"{task_name(task.index)} failed"
    yield ""
    yield f"cause:       {'error' if outcome.cause is None else outcome.cause.value}"
    yield f"message:     {printable(outcome.message)}"
    yield f"source:      {printable(attempt.source)}"
    yield f"host:        {printable(outcome.host or attempt.host or 'unknown')}"
    yield f"attempt:     {attempt.number}"
    if outcome.exit_code is not None:
        yield f"exit code:   {outcome.exit_code}"
    if outcome.signal is not None:
        yield f"signal:      {signal_name(outcome.signal)}"
    if outcome.duration is not None:
        yield f"duration:    {duration(outcome.duration)}"
    if outcome.peak_memory is not None:
        yield f"peak memory: {outcome.peak_memory:.0f} MiB"
    yield f"ended:       {stamp(at)}"
    yield f"failures:    {', '.join(f'{count} x {cause}' for cause, count in task.failures.items())}"
    if task.lost_on:
        yield f"lost on:     {', '.join(printable(place) for place in task.lost_on)}"
    yield ""
    yield "overrides:"
    yield from (f"  {printable(override)}" for override in task.overrides)
    yield from _evidence(directory, outcome)


def _evidence(directory: Path, outcome: Outcome) -> Iterator[str]:
    folder = output_folder(directory, outcome)
    yield ""
    yield "files:"
    if folder is not None:
        yield from (f"  {printable(str(folder / name))}" for name in (STDOUT, STDERR))
    elif outcome.output_dir:
        yield f"  {printable(outcome.output_dir)} (outside the sweep directory, not read)"
    if outcome.record:
        yield f"  {printable(str(directory / outcome.record))}"
    trace = traceback_text(directory, outcome)
    yield ""
    yield trace or "The task left no traceback."
    if folder is not None:
        yield ""
        yield f"End of {STDERR}:"
        try:
            yield tail(folder / STDERR)
        except OSError as e:
            yield f"not read: {e.strerror or e}"
