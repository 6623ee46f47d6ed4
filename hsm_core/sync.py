"""Result sync: brings home what tasks leave on sources that share no files with us, while the sweep runs.

A thread decides what is due, and one more for each transfer carries it out by `Source.collect`. They hear of the
sweep as a listener, and answer with events only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

from hsm_core import events as ev
from hsm_core.config import HsmConfig
from hsm_core.exceptions import Incomplete, SourceError, Unavailable
from hsm_core.sources.base import Post, Source
from hsm_core.state import AttemptRecord, SweepState, TaskRecord
from hsm_core.task import Attempt, Task, TaskState

log = logging.getLogger(__name__)

MOST = 500
"""attempts that one transfer brings"""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""seconds after a transfer that failed; twice as long after each further one, up to the longest"""
RESTS = 5
"""times the duration of a transfer that batches wait after it, lest transfers take the time of quick tasks"""
PATIENCE = 300.0
"""seconds that a source which fails is waited for once the tasks are done"""


@dataclass
class _Lane:
    """What is to be brought from one source. Attempts are named by their ids."""

    source: Source
    started: bool | None = None
    """whether it can be asked; None: it is starting"""
    running: dict[str, Attempt] = field(default_factory=dict)
    ended: dict[str, Attempt] = field(default_factory=dict)
    """whose last transfer is still to come"""
    latest: dict[int, str] = field(default_factory=dict)
    """the attempt of each task that is among these"""
    urgent: bool = False
    """whether they are not to wait for more"""
    moving: set[str] = field(default_factory=set)
    transfers: int = 0
    failing_since: float | None = None
    pause: float = FIRST_PAUSE
    wait_until: float = 0.0
    rest_until: float = 0.0
    """before which what has ended is no batch yet, however much it is"""
    look_at: float = 0.0
    """when what runs is brought as far as it is"""
    collected: int = 0


class ResultSync:
    """The result sync of one launcher. Its `post` takes events from any thread."""

    def __init__(self, config: HsmConfig, sources: Iterable[Source], state: SweepState, post: Post) -> None:
        self._interval = config.compute.result_collection_interval
        self._how = config.result_collection
        self._post = post
        self._changed = threading.Condition()
        self._lanes = {source.name: _Lane(source) for source in sources if not source.shares_files}
        self._hurrying: float | None = None
        """since when nothing else is left to be done"""
        self._closed = False
        for task in state.tasks.values():
            last = task.attempt
            if last is not None and task.state.terminal and not last.collected and last.source in self._lanes:
                attempt = _attempt(task, last)
                self._lanes[last.source].ended[attempt.id] = attempt
        if self._lanes:
            threading.Thread(target=self._run, name="hsm-sync", daemon=True).start()

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        """Hear of an event."""
        hear = self._HEAR.get(type(event))
        if hear is None or not self._lanes:
            return
        with self._changed:
            hear(self, event, state)
            self._changed.notify_all()

    def close(self) -> None:
        """Begin no further transfer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def busy(self) -> bool:
        """Whether something is still to be brought, with a prospect of success; from now on without delay."""
        with self._changed:
            if self._hurrying is None:
                self._hurrying = time.monotonic()
                self._changed.notify_all()
            return any(lane.moving or (lane.ended and self._hopeful(lane)) for lane in self._lanes.values())

    def tally(self) -> list[tuple[Source, int, int]]:
        """Of each source how many attempts were brought home, and how many were not."""
        with self._changed:
            return [(lane.source, lane.collected, len(lane.ended)) for lane in self._lanes.values()]

    def _hopeful(self, lane: _Lane) -> bool:
        if lane.started is False:
            return False
        since = max(lane.failing_since or float("inf"), self._hurrying or 0.0)
        return lane.failing_since is None or time.monotonic() - since < PATIENCE

    # --- what is heard, with the lock held

    def _submitted(self, event: ev.AttemptSubmitted, state: SweepState) -> None:
        self._hurrying = None
        # What an earlier attempt left belongs to this one now, or to nobody.
        for lane in self._lanes.values():
            before = lane.latest.pop(event.task, "")
            lane.running.pop(before, None)
            lane.ended.pop(before, None)

    def _started(self, event: ev.AttemptStarted, state: SweepState) -> None:
        lane = self._lanes.get(event.source)
        task = state.tasks[event.task]
        if lane is not None and task.attempt is not None:
            attempt = _attempt(task, task.attempt)
            lane.running[attempt.id] = attempt
            lane.latest[event.task] = attempt.id

    def _finished(self, event: ev.AttemptFinished, state: SweepState) -> None:
        lane = self._lanes.get(event.source)
        task = state.tasks[event.task]
        if lane is None or task.attempt is None or task.attempt.number != event.attempt:
            return
        attempt = _attempt(task, task.attempt)
        lane.running.pop(attempt.id, None)
        if event.outcome.record is not None:
            lane.ended[attempt.id] = attempt
            lane.latest[event.task] = attempt.id
            failed = event.outcome.status is TaskState.FAILED
            lane.urgent |= failed and self._how.immediate_error_collection

    def _source_started(self, event: ev.SourceStarted | ev.SourceUp, state: SweepState) -> None:
        lane = self._lanes.get(event.source)
        if lane is not None:
            lane.started, lane.wait_until, lane.pause = True, 0.0, FIRST_PAUSE
            lane.look_at = time.monotonic() + self._interval

    def _source_gone(self, event: ev.SourceDisabled, state: SweepState) -> None:
        lane = self._lanes.get(event.source)
        if lane is not None:
            lane.started = False

    _HEAR: dict[type, Callable[..., None]] = {  # noqa: RUF012 - never changed
        ev.AttemptSubmitted: _submitted,
        ev.AttemptStarted: _started,
        ev.AttemptFinished: _finished,
        ev.SourceStarted: _source_started,
        ev.SourceUp: _source_started,
        ev.SourceDisabled: _source_gone,
    }

    # --- transfers

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for lane in self._lanes.values():
                    due = self._due(lane, now)
                    if due:
                        lane.moving.update(attempt.id for attempt in due)
                        lane.transfers += 1
                        threading.Thread(target=self._transfer, args=(lane, due), daemon=True).start()
                moments = [moment for lane in self._lanes.values() for moment in self._moments(lane) if moment > now]
                self._changed.wait(min(moments) - now if moments else None)

    def _due(self, lane: _Lane, now: float) -> list[Attempt]:
        """The attempts that are to be brought now; the lane takes note that they are."""
        if not lane.started or now < lane.wait_until or lane.transfers >= self._how.parallel_transfers:
            return []
        ended = [a for a in lane.ended.values() if a.id not in lane.moving]
        tick = now >= lane.look_at
        if tick:
            lane.look_at = now + self._interval
        batch = len(ended) >= self._how.batch_size and now >= lane.rest_until
        at_once = tick or lane.urgent or self._hurrying is not None or batch
        due = ended[:MOST] if at_once else []
        if len(due) == len(ended):
            lane.urgent = False
        if tick and self._how.continuous_sync:
            due += [a for a in lane.running.values() if a.id not in lane.moving][:MOST]
        return due

    def _moments(self, lane: _Lane) -> Sequence[float]:
        if not lane.started or not (lane.ended or lane.running):
            return ()
        return lane.look_at, lane.wait_until, lane.rest_until

    def _transfer(self, lane: _Lane, due: Sequence[Attempt]) -> None:
        with self._changed:
            done = {attempt.id for attempt in due if attempt.id in lane.ended}
        problem: Exception | None = None
        late: Set[str] = done
        began = time.monotonic()
        try:
            lane.source.collect(due)
            late = frozenset()
        except Incomplete as e:
            problem, late = e, e.attempts
        except SourceError as e:
            problem = e
        except Exception as e:  # a third party's code may raise anything; unheard, its results would be waited for
            log.exception("source %s: collect() raised what is no SourceError", lane.source.name)
            problem = e
        with self._changed:
            lane.moving.difference_update(attempt.id for attempt in due)
            lane.transfers -= 1
            brought = [lane.ended.pop(a.id) for a in due if a.id in done - late and a.id in lane.ended]
            for attempt in brought:  # of no other: its task may have another attempt by now
                lane.latest.pop(attempt.task.index, None)
            lane.collected += len(brought)
            first = problem is not None and lane.failing_since is None
            lane.rest_until = time.monotonic() + RESTS * (time.monotonic() - began)
            self._book(lane, problem)
            self._changed.notify_all()
        if brought:
            self._post(ev.ResultsCollected(lane.source.name, tuple((a.task.index, a.number, a.epoch) for a in brought)))
        if problem is not None and (first or not isinstance(problem, Unavailable)):
            words = f"results can't be brought home now: {problem}"
            self._post(ev.Note("WARNING", words, source=lane.source.name))

    def _book(self, lane: _Lane, problem: Exception | None) -> None:
        now = time.monotonic()
        if problem is None:
            lane.failing_since, lane.pause = None, FIRST_PAUSE
        else:
            lane.failing_since = lane.failing_since or now
            lane.wait_until = now + lane.pause
            lane.pause = min(2 * lane.pause, LONGEST_PAUSE)


def _attempt(task: TaskRecord, attempt: AttemptRecord) -> Attempt:
    known = Task(task.index, task.overrides, task.key)
    return Attempt(known, attempt.number, attempt.epoch, attempt.source)
