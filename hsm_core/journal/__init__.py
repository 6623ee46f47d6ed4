"""The journal of a sweep: append, replay, tail.

One JSON object a line, only ever appended, by one writer. Readers follow by byte offset. Lines
are pure ASCII, so nothing a task hands in can break one. Entries are ordered by `seq`; `t` is
what the clock showed, and clocks jump. Plain reads, writes and renames only: right on NFS too.
"""

from hsm_core.journal.reading import Entry, Replay, Tail, entries, replay, started
from hsm_core.journal.writing import Journal

__all__ = ["Entry", "Journal", "Replay", "Tail", "entries", "replay", "started"]
