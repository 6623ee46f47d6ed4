"""A sweep told event by event, for everything that reads events: listeners, the monitor, the commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core.journal import Journal
from hsm_core.owner import Owner
from hsm_core.registry import register
from hsm_core.remote.names import task_name
from hsm_core.state import SweepState, apply
from hsm_core.task import Cause, Outcome, TaskState

ID = "sweep_20260115_143022"


class Story:
    """Tells events as the engine does: into the journal, then the state, then to the listeners.

    Its own clock, seconds since 1970, goes on by `pace` with every event; the journal has its times.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = SweepState()
        self.listeners: list[Any] = []
        self.at = 1_768_487_422.0
        self.pace = 1.0
        (directory / ".hsm").mkdir(parents=True)
        self.journal = Journal.create(directory / ".hsm" / "journal.jsonl")
        self.owner = Owner.acquire(directory / ".hsm")

    def tell(self, event: ev.Event, after: float | None = None) -> None:
        """The next event, `after` seconds later."""
        self.at += self.pace if after is None else after
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: int(self.at * 1e9))
            self.journal.append(event)
        apply(self.state, event, self.at)
        for listener in self.listeners:
            listener(event, self.state, self.at)

    def begin(self, *sources: str, slots: int = 2, **facts: Any) -> None:
        """The sweep and its sources start; the sweep is registered."""
        register(self.directory, ID)
        fields: dict[str, Any] = {"cwd": str(self.directory.parent), "argv": ("python", "train.py", "-m", "lr=1,2")}
        fields |= {"format": ev.FORMAT, "hsm": "0.1.0", "python": "3.11", "hydra": "1.3.2", "app": "train"} | facts
        self.tell(ev.SweepStarted(id=ID, host="laptop", pid=4711, **fields))
        for source in sources or ("local",):
            self.tell(ev.SourceStarted(source, "local", slots))

    def add(self, *overrides: str) -> int:
        """A task; returns its index."""
        index = len(self.state.tasks)
        self.tell(ev.TaskAdded(index, f"key{index}", overrides))
        return index

    def submit(self, task: int, source: str = "local") -> int:
        """The next attempt of a task starts; returns its number."""
        last = self.state.tasks[task].attempt
        number = 1 if last is None else last.number + 1
        self.tell(ev.AttemptSubmitted(task, number, 1, source))
        self.tell(ev.AttemptStarted(task, number, 1, source, host="node7"))
        return number

    def finish(self, task: int, outcome: Outcome, retry_in: float | None = None) -> None:
        """The current attempt ends."""
        attempt = self.state.tasks[task].attempt
        assert attempt is not None
        self.tell(ev.AttemptFinished(task, attempt.number, 1, attempt.source, outcome, retry_in))

    def complete(self, *overrides: str, value: Any = None, source: str = "local", seconds: float = 2.0) -> int:
        """A task that runs and completes."""
        task = self.add(*overrides)
        self.submit(task, source)
        self.finish(task, Outcome(TaskState.COMPLETED, duration=seconds, return_value=value))
        return task

    def fail(self, *overrides: str, message: str = "ValueError: no", source: str = "local") -> int:
        """A task that runs and fails."""
        task = self.add(*overrides)
        self.submit(task, source)
        self.finish(task, Outcome.failed(Cause.ERROR, message, duration=0.5))
        return task

    def output(self, task: int, stderr: bytes, traceback: str | None) -> dict[str, Any]:
        """Leave what a failed attempt leaves; returns the fields of its outcome that name it."""
        folder = self.directory / "tasks" / task_name(task)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stderr.log").write_bytes(stderr)
        record = Path(".hsm") / "results" / f"{task_name(task)}.json"
        (self.directory / record).parent.mkdir(exist_ok=True)
        error = None if traceback is None else {"type": "ValueError", "message": "no", "traceback": traceback}
        (self.directory / record).write_text(json.dumps({"format": 1, "error": error}))
        return {"output_dir": str(folder), "record": str(record)}

    def end(self, status: str = "finished", reason: str = "") -> None:
        """The launcher is done with the sweep."""
        self.tell(ev.SweepFinished(status, reason))
        self.owner.release()

    def close(self) -> None:
        """Close the listeners and the journal."""
        for listener in self.listeners:
            listener.close()
        self.journal.close()


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path / ID)
    yield told
    told.close()


@pytest.fixture
def story_in() -> Callable[[Path], Story]:
    """Makes further stories; whoever takes one closes it."""
    return Story
