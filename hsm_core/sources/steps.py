"""The steps of `hsm sources test`: what was looked at, how it stands, and what is to be done."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from hsm_core.selection import Selected

T = TypeVar("T")

WORDS = 5000
"""characters of what is told of a step; a host may say what it likes"""


class Status(Enum):
    GOOD = "good"
    WARNING = "warning"
    """it works, but somebody should know"""
    FAILED = "failed"
    NOT_REACHED = "not reached"
    """something before it failed"""
    UNTESTED = "untested"
    """this version of hsm can't look"""


@dataclass(frozen=True)
class Step:
    name: str
    status: Status
    told: str = ""
    """what was found; of a failed one what to do as well"""
    seconds: float = 0.0
    """how long it took"""


class Walk:
    """The steps of one source in their order, each told as soon as it is done."""

    def __init__(self, steps: Sequence[str], tell: Callable[[Step], None]) -> None:
        self._ahead = list(steps)
        self._tell = tell
        self._since = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether there is no next step."""
        return not self._ahead

    def reach(self, name: str, told: str, status: Status = Status.GOOD) -> None:
        """The next step is done. One that was done before is not told again."""
        if name not in self._ahead:
            return
        assert self._ahead[0] == name, f"{name} comes behind {self._ahead[0]}"
        del self._ahead[0]
        self._say(name, status, told)

    def add(self, name: str) -> None:
        """One step more, which comes next."""
        self._ahead.insert(0, name)

    def fail(self, told: str) -> None:
        """The next step failed, and the rest of them is not reached."""
        first, *rest = self._ahead
        self._ahead = []
        self._say(first, Status.FAILED, told)
        for name in rest:
            self._say(name, Status.NOT_REACHED, "")

    def _say(self, name: str, status: Status, told: str) -> None:
        now = time.monotonic()
        self._tell(Step(name, status, told[:WORDS], now - self._since))
        self._since = now


def bare(words: str, name: str) -> str:
    """An error about a source without its name in front, and without its address."""
    return re.sub(rf"^{re.escape(name)}( \([^)]*\))?: ", "", words)


def at_once(
    work: Callable[[Selected, Callable[[T], None]], None], selected: Sequence[Selected]
) -> Iterator[tuple[str, T]]:
    """Do the work for all sources at the same time; what it tells comes with the source's name, as it is told.

    An error of the work is raised here.
    """
    told: queue.SimpleQueue[tuple[str, T] | BaseException | None] = queue.SimpleQueue()

    def run(one: Selected) -> None:
        try:
            work(one, lambda item: told.put((one.name, item)))
        except BaseException as e:
            told.put(e)
        else:
            told.put(None)

    for one in selected:
        threading.Thread(target=run, args=(one,), name=f"hsm-look-{one.name}", daemon=True).start()
    working = len(selected)
    while working:
        item = told.get()
        if item is None:
            working -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item
