"""Attempts of which only their source can tell what became of them.

An earlier launcher left them, or their submission was not answered: the source may have taken them or
not. Either way nobody else gets their tasks before the source, asked by `attach`, has told their end.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hsm_core.events import AttemptFinished
from hsm_core.exceptions import Unavailable
from hsm_core.sources.base import Source
from hsm_core.task import Attempt, Cause, Outcome, attempt_id


class Unsettled:
    """Keeps those that no source could be asked about yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Attempt]] = {}
        self._unanswered: dict[str, str] = {}
        """why a submission was not answered, by attempt"""

    def leave(self, source: str, attempts: Sequence[Attempt]) -> None:
        """These wait until the source of this name can be asked about them."""
        self._waiting.setdefault(source, []).extend(attempts)

    def unanswered(self, source: Source, attempts: Sequence[Attempt], why: str) -> None:
        """Ask a source, now or when it is up again, about a batch that it was given and did not answer."""
        self._unanswered.update((attempt.id, why) for attempt in attempts)
        self.leave(source.name, attempts)
        self.ask(source)

    def ask(self, source: Source) -> None:
        """Ask a source about those that wait for it; they go on waiting where it can't be asked now."""
        attempts = self.take(source.name)
        if not attempts:
            return
        try:
            source.attach(attempts)
        except Unavailable:
            self.leave(source.name, attempts)

    def take(self, source: str) -> list[Attempt]:
        """Those that wait for this source; they don't any more."""
        return self._waiting.pop(source, [])

    def judged(self, end: AttemptFinished, started: bool) -> AttemptFinished:
        """The end of an attempt as it is to be taken.

        One that was lost before anybody heard of its start, after an unanswered submission, never was:
        no worker went down with it, and it is made up for without end.
        """
        why = self._unanswered.pop(attempt_id(end.task, end.attempt, end.epoch), None)
        if why is None or started or end.outcome.cause is not Cause.LOST:
            return end
        return replace(end, outcome=Outcome.failed(Cause.CANCELLED, f"not submitted: {why}"))
