"""Where the attempts on one host have their output: there, and where that is to be here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from hsm_core.records import read_record
from hsm_core.remote import place


class Outputs:
    """The output directories of attempts that are not collected yet, by their ids.

    `directory`: the sweep's, here; `there`: the same there. Of what a host says only what is below
    that counts, and no folder that another task has.
    """

    def __init__(self, directory: Path, there: str) -> None:
        self._directory = directory
        self._there = there
        self._names: dict[str, str] = {}
        """below either directory"""
        self._ended: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def home(self, path: object) -> str | None:
        """A path below the sweep's directory there as it is here, one for tasks; any other is not told."""
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
            return None
        inside = os.path.relpath(path, self._there)
        return None if inside.split(os.sep)[0] in ("..", ".", ".hsm") else str(self._directory / inside)

    def note(self, attempt_id: str, folder: str | None, *, ended: bool) -> None:
        """An attempt has its output in `folder`, as it is called here.

        Raises OutputDirectoryError where that is another task's, OSError.
        """
        if folder is None:
            return
        place.take(str(self._directory), folder, attempt_id.split(".")[0])
        self._names[attempt_id] = os.path.relpath(folder, self._directory)
        if ended:
            self._ended.add(attempt_id)

    def wanted(self, attempts: Iterable[str]) -> tuple[Mapping[str, str], Set[str]]:
        """The directories of these attempts below the sweep's, as far as there are any, and which have ended.

        Those that ended under an earlier launcher are known by their records.
        """
        found: dict[str, str] = {}
        for attempt_id in attempts:
            if attempt_id not in self._names:
                self._recall(attempt_id)
            if attempt_id in self._names:
                found[attempt_id] = self._names[attempt_id]
        return found, found.keys() & self._ended

    def forget(self, attempts: Iterable[str]) -> None:
        """These are collected."""
        for attempt_id in attempts:
            self._names.pop(attempt_id, None)
            self._ended.discard(attempt_id)

    def _recall(self, attempt_id: str) -> None:
        record: Mapping[str, Any] | None
        try:
            record = read_record(self._directory / ".hsm" / "results", attempt_id)
            if record is not None:
                self.note(attempt_id, record.get("output_dir"), ended=True)
        except (ValueError, OSError, place.OutputDirectoryError):
            return
