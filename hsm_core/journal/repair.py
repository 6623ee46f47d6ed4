"""A journal that can't be read to its end: what is wrong with it, and the way back to its last good line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hsm_core.events import AttemptFinished
from hsm_core.exceptions import JournalError
from hsm_core.journal.lines import decode
from hsm_core.journal.reading import Reader, Replay, started
from hsm_core.journal.writing import Journal
from hsm_core.state import SweepState, apply


@dataclass(frozen=True)
class Damage:
    """Where a journal stops being readable, and what stands there and behind."""

    good: Replay
    """what comes before"""
    problem: str
    """what is wrong with the first line that is not good"""
    size: int
    """bytes from there on"""
    records: int
    """lines among these that can be read"""
    ended: tuple[int, ...]
    """tasks, by index, of which only those lines tell how they ended"""


def examine(path: Path) -> Damage | None:
    """What keeps the journal from being read to its end; None where nothing does.

    Raises JournalError when not even its first line is good, or it is of a newer format; OSError.
    """
    started(path)
    state, reader, problem = SweepState(), Reader(path), ""
    with open(path, "rb") as file:
        for raw in file:
            if reader.passes(raw):
                continue
            try:
                line = reader.take(raw)
            except JournalError:
                problem = reader.problem
                break
            if line is None:
                problem = "it can't be read"
                break
            apply(state, line, line.t)
        if not problem:
            return None
        file.seek(reader.offset)
        rest = [data for data in map(decode, file) if data is not None]
        size = os.fstat(file.fileno()).st_size - reader.offset
    told = {data.get("task") for data in rest if data["event"] == AttemptFinished.kind and "retry_in" not in data}
    before = {task.index for task in state.tasks.values() if task.state.terminal}
    ended = tuple(sorted(task for task in told - before if isinstance(task, int)))
    return Damage(Replay(state, reader.seq, reader.offset, torn=True), problem, size, len(rest), ended)


def cut(path: Path, damage: Damage) -> Path:
    """End the journal with its last good line, as `examine` found it. Only the owner of the sweep may.

    What stood behind that is kept in the file whose path is returned. Raises OSError; the journal is as it was then.
    """
    journal = Journal.open(path, damage.good)
    journal.close()
    assert journal.cut is not None, "there was something to cut off"
    return journal.cut
