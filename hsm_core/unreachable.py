"""Sources out of reach: when their attempts are given to others, and what becomes of those once they are back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from hsm_core.events import AttemptFinished, SourceDown, SourceUp
from hsm_core.exceptions import Unavailable
from hsm_core.lanes import Lanes
from hsm_core.state import SweepState
from hsm_core.task import Attempt, Cause, Outcome


class Unreachable:
    """Keeps the time. `patience`: seconds after which the attempts of a source are not waited for any more."""

    def __init__(self, patience: float, lanes: Lanes) -> None:
        self._patience = patience
        self._lanes = lanes
        self._since: dict[str, float] = {}
        self._given_up: dict[str, list[Attempt]] = {}

    def hear(self, event: object) -> None:
        """Take note of a source that is out of reach, and end on one that is back what others do in its place."""
        if isinstance(event, SourceDown) and not event.final:
            self._since.setdefault(event.source, time.monotonic())
        elif isinstance(event, SourceUp):
            self._since.pop(event.source, None)
            given_up = self._given_up.pop(event.source, [])
            if given_up:
                try:
                    self._lanes[event.source].cancel(given_up)
                except Unavailable:
                    self._given_up[event.source] = given_up

    def lost(self, attempts: Iterable[Attempt], state: SweepState) -> Iterator[AttemptFinished]:
        """The ends of those of these attempts whose source is out of reach for too long, while others can take tasks.

        Nobody knows whether they still run: they are lost, and their results will be stale.
        """
        now = time.monotonic()
        for name in [name for name, since in self._since.items() if now - since >= self._patience]:
            if not self._lanes.others(name, state):
                continue
            outcome = Outcome.failed(Cause.LOST, f"{name} has been out of reach for {self._patience:g} s")
            for attempt in [a for a in attempts if a.source == name]:
                self._given_up.setdefault(name, []).append(attempt)
                yield AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, name, outcome)
