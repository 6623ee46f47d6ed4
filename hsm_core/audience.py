"""Those who are told of every event: each goes on listening whatever becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from hsm_core.events import Event
from hsm_core.space import NO_SPACE
from hsm_core.state import SweepState

log = logging.getLogger(__name__)

Listener = Callable[[Event, SweepState, float], None]
"""Called in the engine's thread after an event was journaled and folded."""


class Audience:
    """The listeners of a sweep. One that can't write is left out; one for which the disk is full is told on."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)
        self._hindered: set[str] = set()

    def tell(self, event: Event, state: SweepState, at: float) -> None:
        """Tell all of an event, already applied to `state`; `at` in seconds since 1970."""
        for listener in list(self._listeners):
            name = type(listener).__name__
            try:
                listener(event, state, at)
            except OSError as e:
                if e.errno not in NO_SPACE:
                    self._listeners.remove(listener)
                    log.error("%s stops writing: %s", name, e)
                elif name not in self._hindered:
                    self._hindered.add(name)
                    log.error("%s can't write now: %s", name, e)
            else:
                self._hindered.discard(name)
