"""A launcher died behind every line of a journal, and within them; what it had submitted may have come to anything.

That every single byte is a place where a journal may end is shown in tests/unit/test_journal.py.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.journal import Tail
from hsm_core.task import Attempt, Task, attempt_id
from tests.faults.session_rig import ENDS, SessionRig, begin, end

UNHEARD, IN_VAIN, LIVING, ENDED = "never heard of", "gone without a record", "still running", "ended with a record"
FATES = (UNHEARD, IN_VAIN, LIVING, ENDED)
"""what an attempt whose end nobody journaled may have come to"""


@dataclass(frozen=True)
class Moment:
    """The disk as a launcher leaves it."""

    journal: bytes
    ended: tuple[Attempt, ...]
    open: tuple[Attempt, ...]
    """attempts that were submitted and whose end is not in the journal"""


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionRig:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setattr("psutil.process_iter", lambda: iter(()))
    return SessionRig(tmp_path)


def moments(rig: SessionRig) -> Iterator[Moment]:
    """Of a sweep that ran from beginning to end: before its first line, and behind every line."""
    rig.launch()
    lines = rig.journal.read_bytes().splitlines(keepends=True)
    events = [entry.event for entry in Tail(rig.journal).poll()]
    assert len(events) == len(lines)
    active: dict[str, Attempt] = {}
    ended: list[Attempt] = []
    yield Moment(b"", (), ())
    for count, event in enumerate(events, start=1):
        if isinstance(event, ev.AttemptSubmitted):
            attempt = Attempt(Task(event.task, (), ""), event.attempt, event.epoch, event.source)
            active[attempt.id] = attempt
        elif isinstance(event, ev.AttemptFinished):
            ended.append(active.pop(attempt_id(event.task, event.attempt, event.epoch)))
        yield Moment(b"".join(lines[:count]), tuple(ended), tuple(active.values()))


def restore(rig: SessionRig, moment: Moment, fates: Sequence[str]) -> set[str]:
    """Make the directory what it was then, but for reports of later; returns the attempts that still live."""
    hsm = rig.directory / ".hsm"
    owner = {**json.loads((hsm / "owner_0001.json").read_text()), "released": False, "pid": 2**22 + 1}
    for folder in (hsm, *(rig.directory / str(index) for index in ENDS)):
        shutil.rmtree(folder, ignore_errors=True)
    (hsm / "results").mkdir(parents=True)
    (hsm / "owner_0001.json").write_text(json.dumps(owner))
    rig.journal.write_bytes(moment.journal)
    told = {attempt.id: fate for attempt, fate in zip(moment.open, fates, strict=True)}
    for attempt in (*moment.ended, *moment.open):
        fate = told.get(attempt.id, ENDED)
        if fate != UNHEARD:
            begin(rig.directory, attempt)
        if fate == ENDED:
            end(rig.directory, attempt)
    rig.in_vain = {attempt for attempt, fate in told.items() if fate == IN_VAIN}
    return {attempt for attempt, fate in told.items() if fate == LIVING}


def go_on(rig: SessionRig, moment: Moment, fates: Sequence[str]) -> None:
    print(f"the journal ends at byte {len(moment.journal)}; open attempts:", dict(zip(moment.open, fates, strict=True)))
    living = restore(rig, moment, fates)
    finished = rig.finished()
    rig.go_on(living)
    rig.check()
    assert rig.finished().items() >= finished.items(), "what was finished is not touched"


@pytest.mark.parametrize("step", [0, 1], ids=["all the same", "each another"])
@pytest.mark.parametrize("first", range(4), ids=FATES)
def test_behind_every_line(rig: SessionRig, first: int, step: int) -> None:
    for moment in list(moments(rig)):
        if step == 0 or len(moment.open) > 1:
            go_on(rig, moment, [FATES[(first + step * n) % 4] for n in range(len(moment.open))])


def test_within_every_line(rig: SessionRig) -> None:
    known = list(moments(rig))
    for before, behind in itertools.pairwise(known):
        line = behind.journal[len(before.journal) :]
        for part in (line[:1], line[:-1]):
            torn = Moment(before.journal + part, before.ended, before.open)
            go_on(rig, torn, [ENDED] * len(before.open))
            cut = list((rig.directory / ".hsm").glob("journal.jsonl.torn-*"))
            assert [path.read_bytes() for path in cut] == ([part] if before.journal else [])
