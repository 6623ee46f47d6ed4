"""`reports/results.csv`: one row for every task that has ended, growing while the sweep runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from hsm_core import events as ev
from hsm_core.event_text import ended
from hsm_core.override_text import key_and_value
from hsm_core.remote.names import task_name
from hsm_core.state import SweepState, TaskRecord
from hsm_core.text import printable
from hsm_core.whole_file import write_whole

_BEFORE = ("task", "status", "cause", "source", "attempt", "duration", "return_value")
_AFTER = ("message",)


def value_text(value: Any) -> str:
    """A return value as one cell: text as it is, anything else as JSON, nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parameters(overrides: Iterable[str]) -> dict[str, str]:
    """The task's own overrides, key to value as text; those of `hydra.*` left out."""
    pairs = (key_and_value(override) for override in overrides)
    return {key: value for key, value in pairs if not key.startswith(("hydra.", "hydra/"))}


class ResultsTable:
    """Keeps `reports/results.csv` equal to the ended tasks of the state.

    The usual event costs one appended line. The whole file is written again (temporary file,
    then rename) when an override appears that has no column yet, and when a task that has a row
    is run again. An override named like one of our columns gets the column `override.<name>`.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "reports" / "results.csv"
        self._keys: dict[str, None] = {}
        self._rows: dict[int, str] = {}
        self._file: TextIO | None = None
        self._loaded = False

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if not self._loaded:
            self._load(state)
        elif isinstance(event, ev.TaskReopened):
            # Reopened tasks come in rows; the file follows with the event behind the last of them.
            task = state.tasks.get(event.task)
            if task is not None and not task.state.terminal and self._rows.pop(event.task, None) is not None:
                self._set_aside()
            return
        elif (task := ended(event, state)) is not None:
            self._put(task, state)
        if self._file is None:
            self._rewrite()

    def close(self) -> None:
        """The file is complete and closed afterwards."""
        if self._loaded and self._file is None:
            self._rewrite()
        self._set_aside()

    def _load(self, state: SweepState) -> None:
        self._loaded = True
        self._rows.clear()
        tasks = [task for task in state.tasks.values() if task.state.terminal]
        own = [parameters(task.overrides) for task in tasks]
        for names in own:
            self._keys.update(dict.fromkeys(names))
        self._rows.update((task.index, self._row(task, values)) for task, values in zip(tasks, own, strict=True))

    def _put(self, task: TaskRecord, state: SweepState) -> None:
        own = parameters(task.overrides)
        if not self._keys.keys() >= own.keys():
            self._set_aside()
            self._load(state)
            return
        self._rows[task.index] = self._row(task, own)
        if self._file is not None:
            self._file.write(self._rows[task.index])
            self._file.flush()

    def _row(self, task: TaskRecord, own: Mapping[str, str]) -> str:
        outcome, attempt = task.outcome, task.attempt
        assert outcome is not None and attempt is not None, "only ended tasks have a row"
        return _csv_line(
            task_name(task.index),
            outcome.status.value,
            "" if outcome.cause is None else outcome.cause.value,
            attempt.source,
            str(attempt.number),
            "" if outcome.duration is None else str(outcome.duration),
            value_text(outcome.return_value),
            *(own.get(key, "") for key in self._keys),
            printable(outcome.message),
        )

    def _header(self) -> str:
        taken = {*_BEFORE, *_AFTER}
        columns = (f"override.{key}" if key in taken else key for key in self._keys)
        return _csv_line(*_BEFORE, *columns, *_AFTER)

    def _rewrite(self) -> None:
        write_whole(self._path, "".join([self._header(), *self._rows.values()]))
        # Open for as long as rows are appended; closed by `_set_aside`.
        self._file = open(self._path, "a", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115

    def _set_aside(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _csv_line(*cells: str) -> str:
    buffer = io.StringIO()
    # Readers stop at a NUL, and Python 3.10 refuses to write one.
    csv.writer(buffer, lineterminator="\n").writerow(cell.replace("\0", "\\x00") for cell in cells)
    return buffer.getvalue()
