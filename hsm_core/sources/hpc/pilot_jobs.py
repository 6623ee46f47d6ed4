"""The jobs that pilots are: submitted, watched and adopted as those of tasks are, with another program in them."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hsm_core.config import SourceConfig
from hsm_core.sources.base import Post, SweepContext
from hsm_core.sources.hpc.source import HpcSource
from hsm_core.sources.local import THREAD_VARIABLES
from hsm_core.task import Attempt, Task, task_index


@dataclass(frozen=True)
class Address:
    """Where a pilot's gate is, and what opens it."""

    names: Sequence[str]
    """of its machine, as it may be reached from here"""
    port: int
    secret: str = field(repr=False)


class PilotJobs(HpcSource):
    """Each job is an attempt of no task: it has its name and its record apart from those of tasks.

    `each`: the slots of a pilot.
    """

    program = "pilot"

    def __init__(self, name: str, config: SourceConfig, slots: int, each: int) -> None:
        # What ran in a pilot that ends goes to others.
        super().__init__(name, replace(config, requeue=False, signal_delay=0), slots)
        self._each = each
        self._numbers = itertools.count()
        self._folders: Mapping[str, Path] = {}
        """those of the batches of pilots that earlier launchers left, by the pilots' ids"""

    def _due(self, alike: Sequence[Attempt], quiet: float, held: float) -> bool:
        return True  # all that are wanted come at once

    @property
    def _records(self) -> str:
        return os.path.join(self._top, "pilots")

    @property
    def _composed_from(self) -> Path | None:
        return None

    def start(self, sweep: SweepContext, post: Post) -> None:
        super().start(sweep, post)
        os.makedirs(self._records, mode=0o700, exist_ok=True)

    def _shared(self) -> dict[str, Any]:
        sweep = self._sweep.config
        return {
            **super()._shared(),
            "mode": self.config.worker or sweep.worker,
            "patience": sweep.compute.orphan_timeout,
            "slots": self._each,
            "threads": THREAD_VARIABLES,
            "home": socket.gethostname(),
            "secret": secrets.token_hex(32),
        }

    def new(self, count: int) -> Sequence[Attempt]:
        """So many pilots that were never there."""
        return [self._pilot(next(self._numbers), 1, self._sweep.epoch) for _ in range(count)]

    def left(self) -> Sequence[Attempt]:
        """Those of earlier launchers that may still be there."""
        found = self._site.find(self._top, self._records)
        self._folders = {pilot: Path(batch.folder) for batch in found for pilot in batch.attempts}
        ids = [pilot.split(".") for pilot in self._folders]
        return [self._pilot(task_index(name), int(number), int(epoch)) for name, number, epoch in ids]

    def _pilot(self, index: int, number: int, epoch: int) -> Attempt:
        return Attempt(Task(index, (), ""), number, epoch, self.name)

    def has_started(self, pilot: Attempt) -> bool:
        """Whether it has come so far as to take tasks."""
        folder = self._folder(pilot)
        return folder is not None and _mark(folder, pilot).exists()

    def address(self, pilot: Attempt) -> Address:
        """Where a pilot that has started is reached. Raises OSError where it has ended, and its files are gone."""
        folder = self._folder(pilot)
        if folder is None:
            raise FileNotFoundError(f"{pilot.id} has ended")
        mark = json.loads(_mark(folder, pilot).read_text("utf-8"))
        secret = json.loads((folder / "batch.json").read_text("utf-8"))["secret"]
        return Address(mark["gate"], mark["port"], secret)

    def _folder(self, pilot: Attempt) -> Path | None:
        with self._changed:
            element = self._watch.elements.get(pilot.id)
        return self._folders.get(pilot.id) if element is None else Path(element.batch.folder)


def _mark(folder: Path, pilot: Attempt) -> Path:
    """What it leaves when it has started; a pilot has one start."""
    return folder / f"{pilot.id}.0.started"
