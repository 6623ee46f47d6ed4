"""What is said of a scheduler's jobs, and how often."""

from __future__ import annotations

import pytest

from hsm_core.events import Note, SourceEvent, SourceQueue
from hsm_core.sources.hpc import overview
from hsm_core.sources.hpc.overview import ELSE, MOST, Overview
from hsm_core.sources.hpc.states import JobState, Phase


def pending(reason: str, count: int = 1) -> list[JobState]:
    return [JobState(f"1_{index}", Phase.PENDING, reason) for index in range(count)]


def running(node: str | None, count: int = 1) -> list[JobState]:
    return [JobState(f"2_{index}", Phase.RUNNING, node=node) for index in range(count)]


def test_what_is_new_is_told_at_once() -> None:
    told: list[SourceEvent] = []
    view = Overview("cluster", told.append)
    view.tell([])
    assert told == []
    view.tell(pending("Resources", 2))
    assert told == [
        Note("INFO", "pending in the scheduler: 2 jobs: waits for free nodes", source="cluster"),
        SourceQueue("cluster", {"waits for free nodes": 2}),
    ]
    view.tell([*pending("Resources"), *running("n1")])
    assert told[2:] == [SourceQueue("cluster", {"waits for free nodes": 1}, {"n1": 1})]
    view.tell([])
    assert told[3:] == [SourceQueue("cluster")]


def test_questions_do_not_fill_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm gives now this reason, now that one; and every task that ends changes a number."""
    told: list[SourceEvent] = []
    view = Overview("cluster", told.append)
    for count in range(100, 1, -1):
        view.tell([*pending("Priority" if count % 2 else "Resources", count), *running("n1", 4)])
    assert [type(event) for event in told] == [Note, SourceQueue, Note, SourceQueue]
    monkeypatch.setattr(overview, "EVERY", 0.0)
    view.tell(pending("Priority", 2))
    assert told[4:] == [SourceQueue("cluster", {"jobs of higher priority come first": 2})]
    view.tell(pending("Priority", 2))
    assert len(told) == 5


def test_many_nodes_are_told_together() -> None:
    told: list[SourceEvent] = []
    Overview("cluster", told.append).tell([job for number in range(500) for job in running(f"n{number}", 2)])
    (event,) = told
    assert isinstance(event, SourceQueue)
    assert len(event.running) == MOST + 1
    assert event.running[ELSE] == 2 * (500 - MOST)
