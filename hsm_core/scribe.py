"""The journal as a launcher at work writes it: only while it owns the sweep, and patient while the disk is full."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hsm_core.events import Event, Note
from hsm_core.exceptions import SweepStopped, Unwritable
from hsm_core.journal import Journal
from hsm_core.owner import Owner
from hsm_core.space import NO_SPACE, PATIENCE, room_words
from hsm_core.text import duration

log = logging.getLogger(__name__)

_RETRY = 2.0
_REMIND = 600.0
_STEP = 0.1
"""seconds between two tries, two words about it, and two looks whether to go on waiting"""


class Scribe:
    """Appends events for the owner of a sweep; one that was succeeded writes nothing more.

    A full disk holds the caller up: nothing is handed out then, and what runs goes on. `tell` gets a note about it.
    """

    def __init__(self, journal: Journal, owner: Owner, tell: Callable[[Note], None]) -> None:
        self.ending: SweepStopped | None = None
        """set, from signal handlers too, when the sweep is to end: then nothing is waited for"""
        self._journal = journal
        self._owner = owner
        self._tell = tell
        self._begun = False

    def append(self, event: Event) -> float:
        """As `Journal.append`.

        Raises Superseded, and writes nothing, once another launcher owns the sweep. Where the line can't be written,
        and waiting for room is no use or took too long, raises `ending` if that is set, else Unwritable. The first
        line is not waited for: there is no sweep yet.
        """
        self._owner.check()
        try:
            at = self._journal.append(event)
        except OSError as e:
            if e.errno not in NO_SPACE or not self._begun:
                raise self._stop(e) from e
            at = self._wait_for_room(event, e)
        self._begun = True
        return at

    def sync(self) -> None:
        """As `Journal.sync`, but raises `ending` if that is set, else Unwritable."""
        try:
            self._journal.sync()
        except OSError as e:
            raise self._stop(e) from e

    def _wait_for_room(self, event: Event, error: OSError) -> float:
        began = reminded = time.monotonic()
        log.error("%s. The sweep waits for room; running tasks are left alone. Ctrl-C ends it.", self._words(error))
        while self.ending is None and time.monotonic() < began + PATIENCE:
            tried = time.monotonic()
            while self.ending is None and time.monotonic() < tried + _RETRY:
                time.sleep(_STEP)
            self._owner.check()
            try:
                at = self._journal.append(event)
            except OSError as e:
                if e.errno not in NO_SPACE:
                    raise self._stop(e) from e
                error = e
            else:
                lasted = duration(time.monotonic() - began)
                log.warning("There is room again after %s; the sweep goes on.", lasted)
                self._tell(Note("WARNING", f"The disk was full for {lasted}; nothing was handed out in that time."))
                return at
            if time.monotonic() >= reminded + _REMIND:
                reminded = time.monotonic()
                log.error("%s. The sweep still waits for room.", self._words(error))
        raise self._stop(error) from error

    def _stop(self, error: OSError) -> SweepStopped:
        self.ending = self.ending or Unwritable(f"{self._words(error)}.")
        return self.ending

    def _words(self, error: OSError) -> str:
        room = f", {room_words(self._journal.path.parent)}" if error.errno in NO_SPACE else ""
        return f"The journal can't be written: {error.strerror}: {self._journal.path}{room}"
