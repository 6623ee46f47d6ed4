"""What attempts that wait ask a scheduler for: all that go out in one array ask for the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hsm_core.frozen_composer import frozen_composer
from hsm_core.remote import describe
from hsm_core.remote.compose import Composer
from hsm_core.sources.hpc.own_words import KEY, own_words
from hsm_core.sources.hpc.resources import Resources, of_task
from hsm_core.sources.hpc.translation import lacking
from hsm_core.task import Attempt, Cause, Outcome, Task


class Needs:
    """`defaults` are those of the source, `payload` is what its tasks are composed from; None: they say nothing.

    For one thread.
    """

    def __init__(self, defaults: Resources, system: str, payload: Path | None) -> None:
        self._defaults = defaults
        self._system = system
        self._payload = payload
        self._composer: Composer | None = None
        self._known: dict[str, Resources] = {}
        """by the ids of attempts that are not submitted yet"""

    def unknown(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those that are to be worked out; what others asked for that wait no more is forgotten."""
        self._known = {attempt.id: self._known[attempt.id] for attempt in attempts if attempt.id in self._known}
        return [attempt for attempt in attempts if attempt.id not in self._known]

    def of(self, attempt: Attempt) -> Resources:
        """What an attempt asks for that is not unknown."""
        return self._known[attempt.id]

    def groups(self, attempts: Sequence[Attempt]) -> list[list[Attempt]]:
        """These by what they ask for, in the order in which they come. None is unknown."""
        found: dict[Resources, list[Attempt]] = {}
        for attempt in attempts:
            found.setdefault(self.of(attempt), []).append(attempt)
        return list(found.values())

    def work_out(self, attempts: Sequence[Attempt], patience: float) -> Iterator[tuple[Attempt, Outcome]]:
        """Learn what these ask for, of as many as so many seconds allow; tells which can't be submitted, and why."""
        until = time.monotonic() + patience
        for attempt in attempts:
            try:
                asked = self._asked(attempt)
            except Exception as e:  # resolvers and configuration sources of the app may raise anything
                words = str(e) if type(e) is ValueError else describe.failure(e)["message"]
                yield attempt, Outcome.failed(Cause.ERROR, words)
            else:
                if problems := lacking(asked, self._system):
                    words = "; ".join(f"{field}: {text}" for field, text in problems)
                    yield attempt, Outcome.failed(Cause.REJECTED, f"{attempt.source}: {words}")
                else:
                    self._known[attempt.id] = asked
            if time.monotonic() >= until:
                return

    def _asked(self, attempt: Attempt) -> Resources:
        """Raises ValueError, in words for people, and what Hydra raises."""
        asked = self._of_task(attempt.task)
        if asked.memory is None and attempt.memory is not None:
            asked = asked.with_memory(attempt.memory)
        if attempt.needs is not None and attempt.needs > (asked.memory or 0):
            asked = asked.with_memory(attempt.needs)
        return asked

    def _of_task(self, task: Task) -> Resources:
        if self._payload is None:
            return self._defaults
        if self._composer is None:
            self._composer = frozen_composer(self._payload)
        if not self._composer.may_have(KEY, task.overrides):
            return self._defaults
        return of_task(self._defaults, own_words(self._composer.compose(task.overrides, task.index)))
