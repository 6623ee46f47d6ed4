"""What becomes of the elements of job arrays: by the files that they leave, and by what the scheduler says of them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hsm_core.events import AttemptFinished, AttemptStarted, Note
from hsm_core.exceptions import SourceError
from hsm_core.records import record_path
from hsm_core.remote import starts
from hsm_core.sources.base import Post
from hsm_core.sources.hpc import batch as batches
from hsm_core.sources.hpc.batch import Batch, Sign
from hsm_core.sources.hpc.home import Home
from hsm_core.sources.hpc.resources import Resources
from hsm_core.sources.hpc.scheduler import Scheduler
from hsm_core.sources.hpc.site import Left, Mark
from hsm_core.sources.hpc.slurm_log import phase_of_log
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.sources.hpc.verdict import verdict
from hsm_core.sources.hpc.words import hopeless, reason_words
from hsm_core.task import Attempt, Cause, Outcome

GRACE = 15.0
"""seconds that a result may need to be seen here after its job has ended"""
HOPE = 60.0
"""seconds that a job may wait for what will never come: somebody may be mending that"""
CALLED_OFF = starts.PATIENCE
"""seconds after which what was called off has ended"""


@dataclass
class Element:
    attempt: Attempt
    batch: Batch
    index: int
    start: int = 0
    """the latest start of it that was heard of"""
    restarts: int = 0
    """how often the scheduler has started it again, as far as that has told"""
    started: bool = False
    ended: bool = False
    """whether its process has left a word that it ends"""
    gone_since: float | None = None
    """when its job was first found to have ended"""
    last: JobState | None = None
    """how its job had ended when the scheduler still knew"""
    hopeless_since: float | None = None
    """when it was first found to wait for what will not come"""
    memory: float | None = None
    """MiB that the scheduler gave it by its own word"""
    called_off_at: float | None = None
    """since when it is to end, wherever it still runs"""


@dataclass(frozen=True)
class Seen:
    """What an element has left so far."""

    outcome: Outcome | None
    """by its record; None: it has none"""
    begun: bool
    hint: Phase | None
    """how it ended by its job's own output"""
    said: str
    """the end of that"""

    def may_live(self, state: JobState) -> bool:
        """Whether its processes may live on, though its job is gone: where the scheduler does not see them."""
        return self.begun and self.hint is None and state.phase in (Phase.NODE_FAIL, Phase.UNKNOWN)


class Watch:
    """The elements that are submitted, or may be. A result is waited for before anything is said by absence.

    One thread calls it. `changed` is held while elements come or go, so that others can look at them, and notified.
    """

    def __init__(
        self,
        source: str,
        records: str,
        home: Home,
        scheduler: Scheduler,
        post: Post,
        changed: threading.Condition,
        *,
        requeue: bool,
    ) -> None:
        self._source = source
        self._requeue = requeue
        self._records = records
        """their folder at the site"""
        self._home = home
        self._site = home.site
        self._scheduler = scheduler
        self._post = post
        self._changed = changed
        self.elements: dict[str, Element] = {}
        """by the ids of their attempts"""
        self.cancelled: set[str] = set()
        """attempts that are to end"""
        self.given_up: dict[str, str] = {}
        """attempts whose jobs would never start, and why"""
        self.unwanted: set[str] = set()
        """attempts whose jobs the scheduler is still to be told to end"""
        self.unsure: list[Batch] = []
        """batches of which nobody knows whether they were submitted"""
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
        with self._changed:
            live = self._batches.setdefault(batch.token, batch)
            self._remaining[live.token] += 1
            self.elements[attempt.id] = Element(attempt, live, live.attempts.index(attempt.id))
            return live

    def adopt(self, attempts: Sequence[Attempt], top: str) -> None:
        """Watch attempts that went out in batches below `top`; say how the others have ended."""
        found = self._site.find(top, self._records)
        batch_of = {attempt_id: batches.earlier(one) for one in found for attempt_id in one.attempts}
        adopted = [self.take(attempt, batch_of[attempt.id]) for attempt in attempts if attempt.id in batch_of]
        self.settle([attempt for attempt in attempts if attempt.id not in batch_of], "it was never submitted")
        for one in found:
            if one.settled and not self.elements.keys() & set(one.attempts):
                self._site.remove(one.folder)  # nobody was there when its last attempt ended
        new = {batch.token: batch for batch in adopted if batch.job is None and batch not in self.unsure}
        self.unsure += new.values()

    def look_for_unsure(self) -> None:
        """Find out whether batches were submitted; one that was not never will be. Raises OSError and Unavailable."""
        while self.unsure:
            self._look_for(self.unsure[0])
            del self.unsure[0]

    def _look_for(self, batch: Batch) -> None:
        batch.job = self._scheduler.find(batch.token)
        if batch.job is not None:
            self._site.submitted(batch.folder, batch.job)
            return
        self._site.void(batch.folder)  # it may still be on its way to the scheduler
        never = [e.attempt for e in self.elements.values() if e.batch is batch and not e.started]
        self.settle(never, "it was never submitted")

    def drop(self, attempt_id: str) -> Batch | None:
        """Watch an attempt no more; its batch is returned where that was the last one of it."""
        with self._changed:
            element = self.elements.pop(attempt_id, None)
            if element is None:
                return None
            self._changed.notify_all()
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

    def pending(self, resources: Resources) -> int:
        """How many of them that ask for this have not begun yet, as far as they were heard of."""
        waits = [e for e in self.elements.values() if not (e.started or e.ended)]
        return sum(element.batch.resources == resources for element in waits)

    def is_alone(self, batch: Batch) -> bool:
        """Whether there are no elements but those of this batch."""
        return self._batches.keys() == {batch.token}

    def submitted(self) -> list[Element]:
        """Those that the scheduler has, or had."""
        return [element for element in self.elements.values() if element.batch.job is not None]

    def hear(self) -> None:
        """Hear of what elements have left in their batches' folders. Raises OSError, and what sites raise."""
        known = {b.folder: self._known.setdefault(token, set()) for token, b in self._batches.items()}
        found = self._site.news({folder: len(names) for folder, names in known.items()})
        fresh = {folder: batches.signs(set(found.get(folder, ())) - names) for folder, names in known.items()}
        told = [(self._of_sign(folder, sign), sign) for folder in fresh for sign in fresh[folder]]
        news = [(element, sign) for element, sign in told if element is not None]
        begun = [(element, sign) for element, sign in news if not sign.of_end]
        marks = self._site.begun([os.path.join(element.batch.folder, sign.name) for element, sign in begun])
        said = {sign: mark for (_, sign), mark in zip(begun, marks, strict=True)}
        seen = self.look(element for element, sign in news if sign.of_end)
        for folder, names in found.items():
            known[folder].update(names)
        for element, sign in news:
            if self.elements.get(sign.attempt) is not element or sign.start < element.start:
                continue
            element.start = sign.start
            if sign.of_end:
                self._left(element, seen[sign.attempt])
            else:
                self._begun(element, said[sign])

    def _of_sign(self, folder: str, sign: Sign) -> Element | None:
        """The element that left this in its own batch's folder."""
        element = self.elements.get(sign.attempt)
        return element if element is not None and element.batch.folder == folder else None

    def _begun(self, element: Element, mark: Mark | None) -> None:
        if mark is None:
            return
        element.started = self.any_started = True
        element.ended, element.gone_since, element.last = False, None, None
        a = element.attempt
        element.memory = mark.memory
        facts = (mark.host, mark.pid, self._home.began(a.id, mark), mark.gpus)
        self._post(AttemptStarted(a.task.index, a.number, a.epoch, self._source, *facts))

    def look(self, elements: Iterable[Element]) -> Mapping[str, Seen]:
        """What these have left, by the ids of their attempts; their records are here then."""
        asked = [*elements]
        places = [(self._record(e.attempt), e.batch.marks(e.attempt.id), self._log(e)) for e in asked]
        found = self._site.left(places)
        return {e.attempt.id: self._seen(e.attempt, left) for e, left in zip(asked, found, strict=True)}

    def _record(self, attempt: Attempt) -> str:
        return str(record_path(Path(self._records), attempt.id))

    def _log(self, element: Element) -> str | None:
        return None if element.batch.job is None else self._scheduler.log(element.batch, element.index)

    def _seen(self, attempt: Attempt, left: Left) -> Seen:
        if left.wrong:
            outcome: Outcome | None = Outcome.failed(Cause.LOST, f"invalid result: {left.wrong}")
        else:
            outcome = None if left.record is None else self._home.outcome(attempt.id, left.record)
        return Seen(outcome, left.begun, phase_of_log(left.said or ""), left.said or "")

    def settle(self, attempts: Sequence[Attempt], why: str) -> None:
        """Say of attempts that are not watched how they ended: by their records, else lost because of `why`."""
        found = self._site.left([(self._record(attempt), self._record(attempt), None) for attempt in attempts])
        for attempt, left in zip(attempts, found, strict=True):
            outcome = self._seen(attempt, left).outcome
            self.finish(attempt, outcome or Outcome.failed(Cause.LOST, why))

    def _left(self, element: Element, seen: Seen) -> None:
        """A process has ended: by itself, or because it was told to; why that was, the scheduler knows."""
        element.ended = True
        if seen.outcome is not None and not self._unexplained(element, seen.outcome):
            self.finish(element.attempt, seen.outcome)
        elif seen.hint is not None and element.batch.job is not None and not self._requeue:
            self.judge(element, JobState(self.name(element), Phase.UNKNOWN), seen)
        else:
            self.curious = True

    def _unexplained(self, element: Element, outcome: Outcome) -> bool:
        return outcome.cause is Cause.CANCELLED and element.attempt.id not in self.cancelled

    def judge_all(self, states: Mapping[str, JobState]) -> None:
        """Judge those elements of which the scheduler has told. Raises OSError, and what sites raise."""
        told = [(e, states[name]) for e in self.submitted() if (name := self.name(e)) in states]
        seen = self.look(element for element, state in told if not state.phase.lives)
        self._call_off([e for e, state in told if not state.phase.lives and seen[e.attempt.id].may_live(state)], seen)
        for element, state in told:
            if state.phase.lives:
                element.gone_since = element.last = None
                self._follow(element, state)
                self._doubt(element, state)
            else:
                self.judge(element, state, seen[element.attempt.id])

    def _call_off(self, elements: Iterable[Element], seen: Mapping[str, Seen]) -> None:
        """Have those end that may still run where the scheduler does not see them, and left nothing for a while."""
        now = time.monotonic()
        silent = [e for e in elements if e.gone_since is not None and now - e.gone_since >= GRACE]
        silent = [e for e in silent if seen[e.attempt.id].outcome is None and e.called_off_at is None]
        self._site.call_off([element.batch.marks(element.attempt.id) for element in silent])
        for element in silent:
            element.called_off_at = now

    def judge(self, element: Element, state: JobState, seen: Seen) -> None:
        """Settle an attempt whose job is gone: by its result, or after a while without one by that state."""
        now = time.monotonic()
        if seen.outcome is not None and not self._unexplained(element, seen.outcome):
            self.finish(element.attempt, seen.outcome)
            return
        element.gone_since = element.gone_since or now
        if state.phase.ended:
            element.last = state
        state = element.last or state
        never_ran = state.phase is Phase.CANCELLED and not element.started and not seen.begun
        if element.attempt.id in self.given_up or element.attempt.id in self.cancelled:
            never_ran |= not seen.begun
        if not never_ran and not element.ended and not self._over(element, state, seen, now):
            self.curious = True
            return
        if element.attempt.id in self.given_up:
            judged = Outcome.failed(Cause.REJECTED, self.given_up[element.attempt.id])
        elif element.attempt.id in self.cancelled:
            judged = Outcome.failed(Cause.CANCELLED, "ended before it was done")
        else:
            judged = verdict(state, seen.hint, seen.said, element.batch.resources)
        if seen.outcome is not None:
            judged = msgspec.structs.replace(seen.outcome, cause=judged.cause, message=judged.message)
        self.finish(element.attempt, judged)

    def _over(self, element: Element, state: JobState, seen: Seen, now: float) -> bool:
        """Whether nothing can come any more of an element whose job is gone."""
        if element.gone_since is None or now - element.gone_since < GRACE:
            return False
        if not seen.may_live(state):
            return True
        return element.called_off_at is not None and now - element.called_off_at >= CALLED_OFF

    def _follow(self, element: Element, state: JobState) -> None:
        """Take note of an element that its scheduler starts again."""
        if state.restarts <= element.restarts:
            return
        element.restarts = state.restarts
        if state.phase is not Phase.RUNNING:
            element.started = element.ended = False
        if self._requeue:
            task = element.attempt.task
            words = f"the scheduler has queued job {state.element} of {task.name} again; it goes on in its directory"
            self._post(Note("WARNING", words, source=self._source, task=task.index))

    def _doubt(self, element: Element, state: JobState) -> None:
        """Give up a job that pends for ever, once that is so for a while."""
        now = time.monotonic()
        if state.phase is not Phase.PENDING or not hopeless(state.reason):
            element.hopeless_since = None
            return
        element.hopeless_since = element.hopeless_since or now
        if now - element.hopeless_since >= HOPE and element.attempt.id not in self.given_up:
            self.unwanted.add(element.attempt.id)
            self.given_up[element.attempt.id] = f"job {state.element} {reason_words(state.reason)} ({state.reason})"

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Say how an attempt has ended; of its batch nothing is left once all have."""
        element = self.elements.get(attempt.id)
        if outcome.cause is Cause.OOM and element is not None:
            # Where nobody says how much it had, it had about as much as it was seen to have.
            given = element.batch.resources.memory or element.memory or outcome.peak_memory
            outcome = msgspec.structs.replace(outcome, given=given)
        ended = self.drop(attempt.id)
        if ended is not None:
            with contextlib.suppress(SourceError):  # what stays harms nobody
                self._site.remove(ended.folder)
        if attempt.id in self.cancelled and outcome.cause is Cause.LOST:
            # The scheduler's signals may come to the task before they do to who watches over it.
            words = "ended before it was done"
            outcome = msgspec.structs.replace(outcome, cause=Cause.CANCELLED, message=words)
        self._post(AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, attempt.source, outcome))
