"""What comes from an agent is not believed to make sense: it may be on a machine that somebody else runs."""

from __future__ import annotations

import io
import json
import queue
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import AttemptFinished, AttemptStarted, Note, SourceDown, SourceEvent
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.remote.record import LIMIT, read
from hsm_core.sources.agent import RESTARTS, AgentSource
from hsm_core.sources.base import CommandResult, GpuHealth, SweepContext
from hsm_core.sources.health import health_of
from hsm_core.sources.line import PipeLine
from hsm_core.task import Attempt, Cause, Task
from hsm_core.testing import wait_until

READY = b'{"ev": "ready", "host": "far"}\n'
ATTEMPT = Attempt(Task(0, (), "key"), 1, 1, "far")
RECORD = {"format": 1, "task": 0, "attempt": 1, "epoch": 1, "status": "completed", "host": "far"}
GPU = {"id": "GPU-1", "model": "A100", "memory_total": 40960, "memory_free": 100.5, "utilisation": None}
HEALTH: dict[str, Any] = {
    "took": 0.5,
    "load": 0.25,
    "memory_total": 16000,
    "memory_available": None,
    "disk_free": 1000,
    "disk_free_percent": 12.5,
    "uptime": 100,
    "gpus": [],
    "gpu_problem": None,
}


class Recorded(PipeLine):
    """A line on which an agent says what it was told to, once it was asked for something."""

    def __init__(self, words: bytes) -> None:
        super().__init__(io.BytesIO(), io.BytesIO(READY + words))

    def wait(self, timeout: float) -> None:
        """It has ended."""


class Far(AgentSource):
    type = "far"

    def __init__(self, words: bytes) -> None:
        super().__init__("far", SourceConfig(type="far"), 1)
        self._words = words
        self.events: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()

    def _open(self) -> Recorded:
        self._active[ATTEMPT.id] = ATTEMPT
        self._examined[1] = time.monotonic(), Future()
        self._commands[1] = Future()
        return Recorded(self._words)

    def _fence(self) -> None:
        """Nothing of it runs."""

    def collect(self, attempts: object) -> None:
        """There is nothing."""

    def run_command(self, command: object, timeout: float = 30.0) -> CommandResult:
        raise NotImplementedError


def heard(words: bytes, folder: Path) -> list[SourceEvent]:
    """All that a source posts of which each agent says these words and ends."""
    source = Far(words)
    source.start(SweepContext("sweep_test", "key", folder, 1, folder, HsmConfig(), 1), source.events.put)
    events: list[SourceEvent] = []

    def is_given_up() -> bool:
        while not source.events.empty():
            events.append(source.events.get())
        return any(isinstance(event, SourceDown) and event.final for event in events)

    wait_until(is_given_up, "the source to be given up")
    assert source._reader is not None
    source._reader.join()
    is_given_up()
    return events


def say(**words: Any) -> bytes:
    return json.dumps(words).encode() + b"\n"


@pytest.mark.parametrize(
    "words",
    [
        b"no JSON\n",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'"' + b"x" * (LINE_LIMIT + 1),
        say(ev="finished"),
        say(ev="finished", id=[], record={}),
        say(ev="lost", id=ATTEMPT.id, cause="unheard of", reason="", host=""),
        say(ev="started", id=ATTEMPT.id, pid="1", host="far"),
        say(ev="started", id=ATTEMPT.id, pid=1, output_dir={"a": "b"}),
        say(ev="started", id=ATTEMPT.id, pid=1, gpus=["GPU-1", 2]),
        say(ev="started", id=ATTEMPT.id, pid=10**30),
        say(ev="lost", id=ATTEMPT.id, cause="lost", reason=5, host="far"),
        say(ev="lost", id=ATTEMPT.id, cause="lost", reason="gone", host={}),
        say(ev="unusable", reason={"a": 5}),
        say(ev="note", level=3, message="x"),
        say(ev="note", level="INFO"),
        say(ev="command", id=[], error=""),
        say(ev="command", id=1, exit_code="0", stdout="", stderr=""),
        say(ev="command", id=1, exit_code=0, stdout="", stderr=None),
        say(ev="health", id=[], **HEALTH),
        say(ev="health", id=1),
        say(ev="health", id=1, **{**HEALTH, "load": "high"}),
        say(ev="health", id=1, **{**HEALTH, "load": -1}),
        say(ev="health", id=1, **{**HEALTH, "load": 10**400}),
        say(ev="health", id=1, **{**HEALTH, "memory_total": float("nan")}),
        say(ev="health", id=1, **{**HEALTH, "took": True}),
        say(ev="health", id=1, **{**HEALTH, "gpus": {}}),
        say(ev="health", id=1, **{**HEALTH, "gpus": [{}]}),
        say(ev="health", id=1, **{**HEALTH, "gpus": [{**GPU, "model": 100}]}),
        say(ev="health", id=1, **{**HEALTH, "gpu_problem": ["x"]}),
    ],
    ids=lambda words: words[:30].decode(),
)
def test_an_agent_that_talks_nonsense_is_given_up(words: bytes, tmp_path: Path) -> None:
    events = heard(words, tmp_path)
    notes = [event for event in events if isinstance(event, Note)]
    assert len(notes) == RESTARTS
    assert all("what its agent said can't be understood" in note.message for note in notes)
    assert all(len(note.message) < 1000 for note in notes)
    lost = [event.outcome.cause for event in events if isinstance(event, AttemptFinished)]
    assert lost == [Cause.LOST] * RESTARTS
    assert not any(isinstance(event, AttemptStarted) for event in events)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": 1}, "it belongs to another attempt"),
        ({"attempt": 2}, "it belongs to another attempt"),
        ({"epoch": 2}, "it belongs to another attempt"),
        ({"format": 99}, "format 99, this hsm reads 1"),
        ({"host": {"a": 1}}, "host is {'a': 1}"),
    ],
)
def test_a_result_is_the_attempts_own_or_none(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    events = heard(say(ev="finished", id=ATTEMPT.id, record={**RECORD, **changes}), tmp_path)
    ended = next(event for event in events if isinstance(event, AttemptFinished))
    assert ended.outcome.cause is Cause.LOST
    assert ended.outcome.message.startswith(f"invalid result: {words}")


def test_a_result_of_an_attempt_nobody_submitted_is_not_heard(tmp_path: Path) -> None:
    events = heard(say(ev="finished", id="task_002.1.1", record={**RECORD, "task": 1}), tmp_path)
    assert {event.task for event in events if isinstance(event, AttemptFinished)} == {0}


@pytest.mark.parametrize(
    "answer", [say(ev="command", id=1, exit_code=0, stdout="", stderr=""), say(ev="health", id=1, **HEALTH)]
)
def test_what_is_answered_twice_was_answered_once(answer: bytes, tmp_path: Path) -> None:
    events = heard(2 * answer, tmp_path)
    assert not any(isinstance(event, Note) for event in events)


def test_health_as_it_is_told() -> None:
    told = {**HEALTH, "gpus": [{**GPU, "model": "A\x1b[2J"}], "gpu_problem": "x" * 5000}
    health = health_of(told, 0.75)
    assert health.latency == 250.0
    assert (health.load, health.memory_total, health.memory_available) == (0.25, 16000.0, None)
    assert health.gpus == (GpuHealth("GPU-1", "A\\x1b[2J", 40960.0, 100.5, None),)
    assert len(health.gpu_problem or "") < 1100
    assert health_of({**HEALTH, "took": 9.0}, 0.75).latency == 0.0


def test_a_record_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b'"' + b"x" * (LIMIT - 2) + b'"')
    assert len(read(path)) == LIMIT - 2
    path.write_bytes(b'"' + b"x" * LIMIT + b'"')
    with pytest.raises(ValueError, match="larger than 2 MiB"):
        read(path)


def test_a_result_of_an_attempt_that_is_not_its_own_is_not_even_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source without our files keeps what it is given, under the attempt's name."""
    looked_at: list[str] = []
    real = Far._outcome

    def outcome(self: Far, attempt_id: str, record: object) -> Any:
        looked_at.append(attempt_id)
        return real(self, attempt_id, record)

    monkeypatch.setattr(Far, "_outcome", outcome)
    other = "task_002.1.1"
    words = say(ev="finished", id=other, record={**RECORD, "task": 1}) + say(
        ev="finished", id=ATTEMPT.id, record=RECORD
    )
    events = heard(words, tmp_path)
    assert looked_at == [ATTEMPT.id] * RESTARTS
    assert {event.task for event in events if isinstance(event, AttemptFinished)} == {0}
