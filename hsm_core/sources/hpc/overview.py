"""What a scheduler says of a source's jobs, for people: why some wait, and where others run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from hsm_core.events import Note, SourceQueue
from hsm_core.sources.base import Post
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.sources.hpc.words import reason_words
from hsm_core.text import plural

EVERY = 60.0
"""seconds between two words on numbers that go up and down: the journal keeps all of them"""
MOST = 10
"""reasons, and nodes, that are told one by one; the rest is `ELSE`"""
ELSE = "others"


class Overview:
    """Says how the jobs of a source stand: at once when something is new, and numbers now and then."""

    def __init__(self, source: str, post: Post) -> None:
        self._source = source
        self._post = post
        self._told = SourceQueue(source)
        self._told_at = 0.0
        self._reasons: set[str] = set()
        """all that were told: schedulers give now this one, now that one for the same job"""

    def tell(self, states: Iterable[JobState]) -> None:
        """Take in how all jobs stand by the scheduler's last word."""
        pending: Counter[str] = Counter()
        running: Counter[str] = Counter()
        for state in states:
            if state.phase in (Phase.PENDING, Phase.HELD, Phase.REQUEUED):
                pending[reason_words(state.reason)] += 1
            elif state.phase is Phase.RUNNING:
                running[state.node or ELSE] += 1
        news = pending.keys() - self._reasons
        if news:
            told = "; ".join(f"{plural(count, 'job')}: {words}" for words, count in pending.most_common(3))
            self._post(Note("INFO", f"pending in the scheduler: {told}", source=self._source))
            self._reasons |= news
        event = SourceQueue(self._source, _short(pending), _short(running))
        if event == self._told:
            return
        turned = bool(pending) != bool(self._told.pending) or bool(running) != bool(self._told.running)
        if news or turned or time.monotonic() - self._told_at >= EVERY:
            self._told, self._told_at = event, time.monotonic()
            self._post(event)


def _short(counts: Counter[str]) -> dict[str, int]:
    """The largest of these, the largest first."""
    found = dict(counts.most_common(MOST))
    if len(counts) > MOST:
        found[ELSE] = found.get(ELSE, 0) + counts.total() - sum(found.values())
    return found
