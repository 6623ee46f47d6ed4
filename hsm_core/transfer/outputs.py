"""What the attempts on one host leave there: where it is, where it is to be here, and bringing it home."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsm_core.records import read_record
from hsm_core.remote import place
from hsm_core.ssh.connection import Connection
from hsm_core.transfer.collector import Collector

CLEANING = 300.0
"""seconds that removing what was collected may take"""

LONGEST_NAME = 255
"""bytes that file systems take, see NAME_MAX in limits.h(0p)"""


class Outputs:
    """The output directories of attempts that are not collected yet, by the attempts' ids.

    `directory`: the sweep's, here; `there`: the same there. Of what a host says only what is below
    that counts, and no folder that another task has. With `cleans` what completed attempts left is
    removed there once it is home.
    """

    def __init__(self, directory: Path, there: str, collector: Collector, *, cleans: bool) -> None:
        self._directory = directory
        self._there = there
        self._collector = collector
        self._cleans = cleans
        self._names: dict[str, str] = {}
        """below either directory"""
        self._ended: set[str] = set()
        self._completed: set[str] = set()

    def home(self, path: object) -> str | None:
        """A path below the sweep's directory there as it is here, one for tasks; any other is not told."""
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
            return None
        inside = os.path.relpath(path, self._there)
        names = inside.split(os.sep)
        if names[0] in ("..", ".", ".hsm") or any(len(os.fsencode(name)) > LONGEST_NAME for name in names):
            return None
        return str(self._directory / inside)

    def began(self, attempt_id: str, folder: str | None) -> None:
        """An attempt has its output in `folder`, as it is called here.

        Raises OutputDirectoryError where that is another task's, OSError.
        """
        if folder is not None:
            place.take(str(self._directory), folder, attempt_id.split(".")[0])
            self._names[attempt_id] = os.path.relpath(folder, self._directory)

    def ended(self, attempt_id: str, folder: str | None, *, completed: bool) -> None:
        """It has ended. Raises as `began`."""
        self.began(attempt_id, folder)
        self._ended.add(attempt_id)
        if completed:
            self._completed.add(attempt_id)

    def collect(self, attempts: Sequence[str], connection: Connection) -> tuple[Sequence[str], Mapping[str, str]]:
        """Bring home what these have left so far.

        What people should know of it is returned, and for attempts that ended and did not come whole what is wrong.
        Raises Unavailable and SourceError.
        """
        outputs = self._known(attempts)
        ended = outputs.keys() & self._ended
        if not outputs:
            return (), {}
        skipped, late = self._collector.collect(outputs, ended)
        words = [f"{what}; it is not brought home" for what in skipped]
        ended -= late.keys()
        done = ended & self._completed
        for attempt_id in ended:
            self._names.pop(attempt_id, None)
        self._ended -= ended
        self._completed -= done
        if done and self._cleans:
            words += self._remove(connection, [outputs[attempt_id] for attempt_id in done])
        return words, late

    def close(self, connection: Connection) -> None:
        """Remove the sweep's directory there, if that is wanted and nothing in it is still to be collected."""
        if self._cleans and not self._names:
            self._remove(connection, [""])

    def _known(self, attempts: Sequence[str]) -> Mapping[str, str]:
        """The directories of those of these attempts that have one."""
        for attempt_id in attempts:
            if attempt_id not in self._names:
                self._recall(attempt_id)
        return {attempt_id: self._names[attempt_id] for attempt_id in attempts if attempt_id in self._names}

    def _recall(self, attempt_id: str) -> None:
        """Find an attempt that ended under an earlier launcher by its record."""
        record: Mapping[str, Any] | None
        try:
            record = read_record(self._directory / ".hsm" / "results", attempt_id)
            if record is not None:
                completed = record.get("status") == "completed"
                self.ended(attempt_id, record.get("output_dir"), completed=completed)
        except (ValueError, OSError, place.OutputDirectoryError):
            return

    def _remove(self, connection: Connection, names: Sequence[str]) -> Sequence[str]:
        """Remove these there; returns what went wrong, which harms nobody. Raises Unavailable."""
        targets = shlex.join(os.path.join(self._there, name) for name in names)
        program = connection.run(f"rm -rf -- {targets}")
        try:
            if program.wait(CLEANING) == 0:
                return ()
            return [f"what was collected can't be removed there: {program.errors().strip()[-500:]}"]
        finally:
            program.close()
