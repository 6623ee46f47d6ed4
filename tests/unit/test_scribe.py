"""Writing the journal while the disk is full, broken, or somebody else's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core import scribe as scribes
from hsm_core import space
from hsm_core.exceptions import Superseded, SweepInterrupted, Unwritable
from hsm_core.journal import Journal
from hsm_core.owner import Owner
from hsm_core.scribe import Scribe

EVENT = ev.TasksPlanned(3)


class FullJournal(Journal):
    """Can't append while `error` is set; `asked` is called at every try."""

    error: int | None = None
    asked: Callable[[], object] = staticmethod(lambda: None)

    def append(self, event: ev.Event) -> float:
        self.asked()
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), str(self.path))
        return super().append(event)


class Desk:
    """A scribe with its journal, of which one line is written, and its notes."""

    def __init__(self, hsm: Path) -> None:
        self.hsm = hsm
        journal = FullJournal.create(hsm / "journal.jsonl")
        assert isinstance(journal, FullJournal)
        self.journal = journal
        self.notes: list[ev.Note] = []
        self.scribe = Scribe(self.journal, Owner.acquire(hsm), self.notes.append)
        self.scribe.append(EVENT)
        self.tries = 0

    def fill(self, number: int = errno.ENOSPC) -> None:
        self.journal.error = number

    def at_try(self, number: int, act: Callable[[], object]) -> None:
        """Do this when it tries to append for the so-manieth time from now on."""

        def asked() -> None:
            self.tries += 1
            if self.tries == number:
                act()

        self.journal.asked = asked

    def lines(self) -> int:
        return len((self.hsm / "journal.jsonl").read_bytes().splitlines())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(scribes, "_RETRY", 0.02)
    monkeypatch.setattr(scribes, "_STEP", 0.01)
    return Desk(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_it_waits_for_room_and_tells_before_and_after(
    desk: Desk, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.fill(number)
    desk.at_try(4, lambda: setattr(desk.journal, "error", None))
    desk.scribe.append(EVENT)
    assert desk.lines() == 2
    assert caplog.text.count("The sweep waits for room; running tasks are left alone.") == 1
    assert f"{os.strerror(number)}: {desk.hsm}/journal.jsonl, " in caplog.text
    assert " are free on /" in caplog.text
    (note,) = desk.notes
    assert note.message.startswith("The disk was full for ")


def test_its_patience_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribes, "PATIENCE", 0.1)
    desk.fill()
    desk.at_try(0, lambda: None)
    with pytest.raises(Unwritable, match=r"can't be written: No space left .*journal\.jsonl, .* are free on /"):
        desk.scribe.append(EVENT)
    assert desk.tries > 1
    assert desk.lines() == 1


def test_the_first_line_of_a_sweep_is_not_waited_for(tmp_path: Path) -> None:
    journal = FullJournal.create(tmp_path / "journal.jsonl")
    assert isinstance(journal, FullJournal)
    journal.error = errno.ENOSPC
    with pytest.raises(Unwritable):
        Scribe(journal, Owner.acquire(tmp_path), lambda note: None).append(EVENT)


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG, errno.EROFS])
@pytest.mark.parametrize("when", [1, 3])
def test_what_no_room_would_mend_is_not_waited_for(desk: Desk, number: int, when: int) -> None:
    desk.fill()
    desk.at_try(when, lambda: desk.fill(number))
    with pytest.raises(Unwritable, match=os.strerror(number)):
        desk.scribe.append(EVENT)
    assert desk.tries == when


def test_a_sweep_that_is_to_end_does_not_wait(desk: Desk) -> None:
    ending = SweepInterrupted("the sweep was interrupted by SIGINT", 2)
    desk.fill()
    desk.at_try(2, lambda: setattr(desk.scribe, "ending", ending))
    for _ in range(2):
        with pytest.raises(SweepInterrupted) as caught:
            desk.scribe.append(EVENT)
        assert caught.value is ending
    assert desk.tries == 3


def test_one_that_was_succeeded_stops_waiting(desk: Desk) -> None:
    desk.fill()
    desk.at_try(2, lambda: Owner.acquire(desk.hsm, takeover=True))
    with pytest.raises(Superseded):
        desk.scribe.append(EVENT)
    assert desk.tries == 2
    desk.journal.error = None
    with pytest.raises(Superseded):
        desk.scribe.append(EVENT)
    assert desk.lines() == 1


def test_a_sync_that_fails_ends_the_sweep(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    desk.scribe.append(EVENT)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Unwritable, match="Input/output error"):
        desk.scribe.sync()


# --- room for tasks --------------------------------------------------------------------------------


def test_room_is_told_when_it_ends_and_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[ev.Note] = []
    monkeypatch.setattr(space, "_LOOK_EVERY", 0.0)
    room = space.Room(tmp_path, notes.append)
    answers = []
    for floor in (0, 1 << 60, 1 << 60, 0, 0):
        monkeypatch.setattr(space, "_FLOOR", floor)
        monkeypatch.setattr(space, "_FLOOR_SHARE", float(floor))
        answers.append(room.enough())
    assert answers == [True, False, False, True, True]
    assert [(note.level, note.message.partition(":")[0]) for note in notes] == [
        ("ERROR", "The disk is full"),
        ("INFO", "There is room again"),
    ]


def test_room_that_does_not_come_back_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(space, "_FLOOR", 1 << 60)
    monkeypatch.setattr(space, "_FLOOR_SHARE", float(1 << 60))
    monkeypatch.setattr(space, "PATIENCE", 0.0)
    room = space.Room(tmp_path, lambda note: None)
    assert not room.enough()
    with pytest.raises(Unwritable, match="The disk is full since"):
        room.enough()
