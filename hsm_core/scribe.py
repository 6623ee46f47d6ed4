"""The journal as a launcher at work writes it: only for as long as it owns the sweep."""

from __future__ import annotations

from hsm_core.events import Event
from hsm_core.journal import Journal
from hsm_core.owner import Owner


class Scribe:
    """Appends events for the owner of a sweep; one that was succeeded writes nothing more."""

    def __init__(self, journal: Journal, owner: Owner) -> None:
        self._journal = journal
        self._owner = owner

    def append(self, event: Event) -> float:
        """As `Journal.append`. Raises Superseded, and writes nothing, once another launcher owns the sweep."""
        self._owner.check()
        return self._journal.append(event)

    def sync(self) -> None:
        """As `Journal.sync`."""
        self._journal.sync()
