"""What becomes of the elements of job arrays: by the files that they leave, and by what the scheduler says of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hsm_core.events import AttemptFinished, AttemptStarted
from hsm_core.records import settle
from hsm_core.sources.base import Post
from hsm_core.sources.hpc import batch as batches
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.scheduler import Scheduler
from hsm_core.sources.hpc.slurm_log import phase_of_log
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.sources.hpc.verdict import verdict
from hsm_core.sources.hpc.words import hopeless, reason_words
from hsm_core.task import Attempt, Cause, Outcome

GRACE = 15.0
"""seconds that a result may need to be seen here after its job has ended"""
HOPE = 60.0
"""seconds that a job may wait for what will never come: somebody may be mending that"""
SAID = 4096
"""bytes at the end of a job's output that are looked at"""


@dataclass
class Element:
    attempt: Attempt
    batch: Batch
    index: int
    started: bool = False
    ended: bool = False
    """whether its process has left a word that it ends"""
    gone_since: float | None = None
    """when its job was first found to have ended"""
    hopeless_since: float | None = None
    """when it was first found to wait for what will not come"""
    memory: float | None = None
    """MiB that the scheduler gave it by its own word"""


class Watch:
    """The elements that are submitted, or may be. A result is waited for before anything is said by absence."""

    def __init__(self, source: str, records: Path, scheduler: Scheduler, post: Post) -> None:
        self._source = source
        self._records = records
        self._scheduler = scheduler
        self._post = post
        self.elements: dict[str, Element] = {}
        """by the ids of their attempts"""
        self.cancelled: set[str] = set()
        """attempts that are to end"""
        self.given_up: dict[str, str] = {}
        """attempts whose jobs would never start, and why"""
        self.unwanted: set[str] = set()
        """attempts whose jobs the scheduler is still to be told to end"""
        self.any_started = False
        self.curious = False
        """whether the scheduler is to be asked soon"""
        self._batches: dict[str, Batch] = {}
        """those of which there are elements, by token"""
        self._remaining: Counter[str] = Counter()
        """how many elements there are of each"""
        self._known: dict[str, set[str]] = {}
        """files of theirs that were heard of"""

    def take(self, attempt: Attempt, batch: Batch) -> Batch:
        """Watch an attempt that went out in a batch; the one of this token that is known already is returned."""
        live = self._batches.setdefault(batch.token, batch)
        self._remaining[live.token] += 1
        self.elements[attempt.id] = Element(attempt, live, live.attempts.index(attempt.id))
        return live

    def drop(self, attempt_id: str) -> Batch | None:
        """Watch an attempt no more; its batch is returned where that was the last one of it."""
        element = self.elements.pop(attempt_id, None)
        if element is None:
            return None
        token = element.batch.token
        self._remaining[token] -= 1
        if self._remaining[token] > 0:
            return None
        del self._remaining[token]
        self._known.pop(token, None)
        return self._batches.pop(token)

    def name(self, element: Element) -> str:
        """The scheduler's name for an element whose batch is submitted."""
        return self._scheduler.element(str(element.batch.job), element.index)

    def submitted(self) -> list[Element]:
        """Those that the scheduler has, or had."""
        return [element for element in self.elements.values() if element.batch.job is not None]

    def hear(self) -> None:
        """Hear of what elements have left in their batches' folders."""
        for token, batch in list(self._batches.items()):
            known = self._known.setdefault(token, set())
            for name in sorted(batches.news(batch, known), reverse=True):  # .started before .ended
                known.add(name)
                attempt_id, _, what = name.rpartition(".")
                element = self.elements.get(attempt_id)
                if element is not None and what == "started":
                    self._begun(element, batch.folder / name)
                elif element is not None:
                    self._left(element)

    def _begun(self, element: Element, mark: Path) -> None:
        told: Mapping[str, Any] = json.loads(mark.read_text("utf-8"))
        element.started = self.any_started = True
        a = element.attempt
        element.memory = told["memory"]
        facts = (told["host"], told["pid"], told["output_dir"], told["gpus"])
        self._post(AttemptStarted(a.task.index, a.number, a.epoch, self._source, *facts))

    def _left(self, element: Element) -> None:
        """A process has ended: by itself, or because it was told to; why that was, the scheduler knows."""
        element.ended = True
        outcome = settle(self._records, element.attempt, "").outcome
        if outcome.record is not None and not self._unexplained(element, outcome):
            self.finish(element.attempt, outcome)
        elif self._said(element)[0] is not None and element.batch.job is not None:
            self.judge(element, JobState(self.name(element), Phase.UNKNOWN))
        else:
            self.curious = True

    def _unexplained(self, element: Element, outcome: Outcome) -> bool:
        return outcome.cause is Cause.CANCELLED and element.attempt.id not in self.cancelled

    def judge(self, element: Element, state: JobState) -> None:
        """Settle an attempt if its job is gone: by its result, or after a while without one by that state."""
        now = time.monotonic()
        if state.phase.lives:
            element.gone_since = None
            self._doubt(element, state, now)
            return
        outcome = settle(self._records, element.attempt, "").outcome
        if outcome.record is not None and not self._unexplained(element, outcome):
            self.finish(element.attempt, outcome)
            return
        element.gone_since = element.gone_since or now
        never_ran = state.phase is Phase.CANCELLED and not element.started
        if element.attempt.id in self.given_up or element.attempt.id in self.cancelled:
            never_ran |= not batches.has_begun(element.batch, element.attempt.id)
        if not never_ran and not element.ended and now - element.gone_since < GRACE:
            self.curious = True
            return
        if element.attempt.id in self.given_up:
            judged = Outcome.failed(Cause.REJECTED, self.given_up[element.attempt.id])
        elif element.attempt.id in self.cancelled:
            judged = Outcome.failed(Cause.CANCELLED, "ended before it was done")
        else:
            judged = verdict(state, *self._said(element), element.batch.resources)
        if outcome.record is not None:
            judged = msgspec.structs.replace(outcome, cause=judged.cause, message=judged.message)
        self.finish(element.attempt, judged)

    def _doubt(self, element: Element, state: JobState, now: float) -> None:
        """Give up a job that pends for ever, once that is so for a while."""
        if state.phase is not Phase.PENDING or not hopeless(state.reason):
            element.hopeless_since = None
            return
        element.hopeless_since = element.hopeless_since or now
        if now - element.hopeless_since >= HOPE and element.attempt.id not in self.given_up:
            self.unwanted.add(element.attempt.id)
            self.given_up[element.attempt.id] = f"job {state.element} {reason_words(state.reason)} ({state.reason})"

    def _said(self, element: Element) -> tuple[Phase | None, str]:
        """How an element ended by its own output, and the end of that."""
        try:
            with open(self._scheduler.log(element.batch, element.index), "rb") as file:
                file.seek(max(0, file.seek(0, 2) - SAID))
                said = file.read().decode(errors="replace")
        except OSError:
            return None, ""
        return phase_of_log(said), said

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Say how an attempt has ended; of its batch nothing is left once all have."""
        element = self.elements.get(attempt.id)
        if outcome.cause is Cause.OOM and element is not None:
            # Where nobody says how much it had, it had about as much as it was seen to have.
            given = element.batch.resources.memory or element.memory or outcome.peak_memory
            outcome = msgspec.structs.replace(outcome, given=given)
        ended = self.drop(attempt.id)
        if ended is not None:
            ended.remove()
        self._post(AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, attempt.source, outcome))
