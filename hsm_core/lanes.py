"""The sources of a sweep as the engine deals with them: starting, ready, free, and whose turn it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hsm_core import strategies
from hsm_core.exceptions import SourceError
from hsm_core.sources.base import Post, Source, SweepContext
from hsm_core.state import SweepState
from hsm_core.task import Task

log = logging.getLogger(__name__)

SETTLE = 1.0
"""seconds the first deal waits for the other sources once one is ready"""
LAST_STEPS = 5.0
"""seconds until a source that was stopped while it started is done with that"""


@dataclass(frozen=True)
class Lane:
    """A source with what the selection and the configuration say about it."""

    source: Source
    weight: float | None
    """None: the number of slots"""
    priority: int


@dataclass(frozen=True)
class SourceReady:
    """Posted by the thread that started a source."""

    source: str


@dataclass(frozen=True)
class SourceUnusable:
    """Posted by the thread that could not start a source."""

    source: str
    reason: str


class Lanes:
    """All sources of a sweep, in the order of the selection, and the strategy that deals tasks to them."""

    def __init__(self, lanes: Mapping[str, Lane], strategy: strategies.Strategy) -> None:
        self._lanes = lanes
        self._strategy = strategy
        self._starting = set(lanes)
        self._first_ready: float | None = None
        self._starts: list[threading.Thread] = []

    def __contains__(self, name: str) -> bool:
        return name in self._lanes

    def __iter__(self) -> Iterator[Source]:
        return (lane.source for lane in self._lanes.values())

    def __getitem__(self, name: str) -> Source:
        return self._lanes[name].source

    def alive(self, state: SweepState) -> set[str]:
        """The names of all that are not taken out, whether ready, down or still starting."""
        return {name for name in self._lanes if name not in state.sources or state.sources[name].disabled is None}

    def in_use(self, name: str, state: SweepState) -> bool:
        """Whether a source was started and is not taken out."""
        return name not in self._starting and name in self.alive(state)

    def others(self, name: str, state: SweepState) -> bool:
        """Whether tasks can go to another source than this one now."""
        rest = (other for other in self._lanes if other != name and self.in_use(other, state))
        return any(other in state.sources and state.sources[other].down is None for other in rest)

    def start(self, sweep: SweepContext, post: Callable[[SourceReady | SourceUnusable], None], events: Post) -> None:
        """Start every source in a thread of its own; each posts SourceReady or SourceUnusable."""

        def run(source: Source) -> None:
            try:
                source.start(sweep, events)
            except SourceError as e:
                post(SourceUnusable(source.name, str(e)))
            except Exception as e:  # a third party's code may raise anything; unheard, the sweep would wait for it
                log.exception("source %s: start() raised what is no SourceError", source.name)
                post(SourceUnusable(source.name, f"{source.name}: {type(e).__name__}: {e}"))
            else:
                post(SourceReady(source.name))

        for source in self:
            start = threading.Thread(target=run, args=(source,), name=f"hsm-start-{source.name}", daemon=True)
            self._starts.append(start)
            start.start()

    def stop(self, timeout: float) -> None:
        """End what runs on the sources; each has `timeout` seconds for that."""
        for source in self:
            source.stop(timeout)
        self._await_starts()

    def leave(self, timeout: float) -> None:
        """Part from the sources; tasks that need no launcher go on, all others end."""
        for source in self:
            source.leave(timeout)
        self._await_starts()

    def _await_starts(self) -> None:
        # A thread that is inside of a compiled library when the interpreter ends may take the process down with it.
        for start in self._starts:
            start.join(LAST_STEPS)

    def ready(self, name: str) -> None:
        """Take note that a source is ready."""
        self._starting.discard(name)
        if self._first_ready is None:
            self._first_ready = time.monotonic()

    def unusable(self, name: str) -> None:
        """Take note that a source will never be ready."""
        self._starting.discard(name)

    def settles_at(self) -> float:
        """The monotonic time until which the first deal waits for slower sources; 0: no more waiting.

        Without that the sources that start quickest would get the first tasks, whatever the
        strategy says.
        """
        if not self._starting:
            return 0.0
        return float("inf") if self._first_ready is None else self._first_ready + SETTLE

    def available(self, state: SweepState) -> list[strategies.SourceView]:
        """The sources with a free slot, as a strategy sees them."""
        views = []
        for name, lane in self._lanes.items():
            seen, source = state.sources.get(name), lane.source
            if name in self._starting or seen is None or seen.down is not None or seen.disabled is not None:
                continue
            if seen.active < source.slots:
                weight = float(source.slots) if lane.weight is None else lane.weight
                facts = (name, source.type, source.slots, seen.active, weight, lane.priority, source.has_gpu)
                views.append(strategies.SourceView(*facts))
        return views

    def choose(self, task: Task, available: Sequence[strategies.SourceView]) -> str:
        """The source the strategy gives the task to. Raises StrategyFault."""
        return strategies.choose(self._strategy, task, available).name

    def fall_back(self) -> str:
        """Go on with round robin; returns the name of the strategy that had to go."""
        name = type(self._strategy).__name__
        self._strategy = strategies.RoundRobin()
        return name

    def dead(self, state: SweepState) -> dict[str, list[str]] | None:
        """When no source can ever take a task again: the reasons, each with the sources it holds for."""
        reasons: dict[str, list[str]] = {}
        for name in self._lanes:
            seen = state.sources.get(name)
            if name in self._starting or seen is None or seen.disabled is None:
                return None
            reasons.setdefault(seen.disabled.removeprefix(f"{name}: "), []).append(name)
        return reasons
