"""Sources that run tasks through an agent: what is the same for every way to reach one.

A subclass opens the line to its agent; this class speaks the agent's protocol
(`hsm_core.remote.agent`), one JSON object a line, and turns its words into events.
"""

from __future__ import annotations

import itertools
import json
import reprlib
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import AttemptFinished, AttemptStarted, Note, SourceDown, SourceUp
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.records import outcome_of, settle
from hsm_core.remote import gpus, health
from hsm_core.remote.leases import capacity
from hsm_core.sources.base import CommandResult, Health, Post, Source, SweepContext
from hsm_core.sources.health import health_of
from hsm_core.sources.line import Line
from hsm_core.sources.spec import spec
from hsm_core.task import Attempt, Cause, Outcome

RESTARTS = 3
"""agents that may end by themselves, one after the other without a task started between"""
HEALTH_PATIENCE = health.PATIENCE + 5.0
"""seconds an agent has to say how its host is"""


class AgentSource(Source):
    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._lock = threading.Lock()
        self._active: dict[str, Attempt] = {}
        self._commands: dict[int, Future[CommandResult]] = {}
        self._examined: dict[int, tuple[float, Future[Health]]] = {}
        """when somebody asked how the host is, and the answer"""
        self._numbers = itertools.count(1)
        self._line: Line | None = None
        self._reader: threading.Thread | None = None
        self._ready: Future[Mapping[str, Any]] = Future()
        self._facts: Mapping[str, Any] = {}
        self._stopping = False
        self._useless = False
        """whether the agent said that the app can't run there: then another agent would say the same"""
        self._deaths = 0

    @abstractmethod
    def _open(self) -> Line:
        """Start the agent and return the line to it. Raises SourceError."""

    @abstractmethod
    def _fence(self) -> None:
        """Make sure nothing of an agent that is gone runs any more; returns once that is so."""

    @property
    def has_gpu(self) -> bool:
        return bool(self._facts["gpus"]) if "gpus" in self._facts else super().has_gpu

    def describe(self) -> Mapping[str, Any]:
        return self._facts

    @property
    def _wanted(self) -> Mapping[str, Any] | None:
        """The GPUs the agent has to find there, as `hsm_core.remote.gpus.request` tells."""
        return gpus.request(self.config.gpus, self._sweep.config.gpus_per_task)

    def _mode(self, sweep: HsmConfig) -> str:
        return self.config.worker or sweep.worker

    def _beginning(self) -> dict[str, Any]:
        """The first request to an agent: the sweep it works for, with paths as they are there."""
        return {
            "do": "begin",
            "payload": str(self._sweep.payload),
            "records": str(self._sweep.records),
            "isolation": self.config.isolation or self._sweep.config.isolation,
            "log": self._log,
            "variables": {"HSM_SWEEP_ID": self._sweep.id, "HSM_SWEEP_DIR": str(self._sweep.directory)},
            "gpus": self._wanted,
            "manifests": not self.shares_files,
        }

    def start(self, sweep: SweepContext, post: Post) -> None:
        self._sweep, self._post = sweep, post
        self._connect()
        self._fit_slots()

    def _fit_slots(self) -> None:
        """Take no more tasks than the GPUs have room for: others could run elsewhere instead of waiting here."""
        if self._wanted is None or self._wanted["per_task"] == 0:
            return
        devices, per_task = len(self._facts["gpus"]), self._wanted["per_task"]
        room = capacity(devices, per_task)
        if self.slots == 0:
            self.slots = room
        elif room < self.slots:
            words = f"{self.slots} slots become {room}: it has {devices} GPUs, and each task needs {per_task:g}"
            self._post(Note("INFO", words, source=self.name))
            self.slots = room

    def _connect(self) -> None:
        self._ready = Future()
        self._line = self._open()
        self._send(self._beginning())
        reader = threading.Thread(target=self._read, args=(self._line,), name=f"hsm-{self.name}", daemon=True)
        with self._lock:  # `stop` may come at any time, and joins it, which must have been started by then
            self._reader = reader
            reader.start()
        if self._stopping:
            self._send({"do": "stop", "grace": 0.0})
            self._hang_up(2.0)
            raise SourceError(f"{self.name}: stopped while it was starting")
        try:
            self._facts = self._ready.result()
        except SourceError:
            self._hang_up(0.0)
            raise

    def submit(self, attempts: Sequence[Attempt]) -> None:
        with self._lock:
            self._active.update((a.id, a) for a in attempts)
        self._send({"do": "run", "attempts": [spec(a, self._sweep.config) for a in attempts]})

    def attach(self, attempts: Sequence[Attempt]) -> None:
        self._bury(attempts, "its agent is gone, and it left no result")

    def _ask_for(self, attempts: Sequence[Attempt]) -> None:
        """Have an agent with a door tell how these stand, which an earlier launcher may have given to it."""
        with self._lock:
            self._active.update((a.id, a) for a in attempts)
        self._send({"do": "attach", "ids": [a.id for a in attempts]})

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        self._send({"do": "cancel", "ids": [a.id for a in attempts]})

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        number = next(self._numbers)
        answer: Future[CommandResult] = Future()
        self._commands[number] = answer
        self._send({"do": "command", "id": number, "argv": list(command), "timeout": timeout})
        try:
            return answer.result(timeout + 5.0)
        except FutureTimeout:
            raise Unavailable(f"{self.name}: the agent did not answer within {timeout + 5.0:g} s") from None
        finally:
            self._commands.pop(number, None)

    def health(self) -> Health | None:
        number = next(self._numbers)
        answer: Future[Health] = Future()
        self._examined[number] = time.monotonic(), answer
        self._send({"do": "health", "id": number, "gpus": True})
        try:
            return answer.result(HEALTH_PATIENCE)
        except FutureTimeout:
            raise Unavailable(f"{self.name}: the agent did not answer within {HEALTH_PATIENCE:g} s") from None
        finally:
            self._examined.pop(number, None)

    def stop(self, timeout: float = 10.0) -> None:
        self._stopping = True
        if self._line is None:
            return  # `_connect` looks before it goes on
        grace = max(0.0, min(timeout - 2.0, self._sweep.config.grace))
        self._send({"do": "stop", "grace": grace})
        self._hang_up(timeout)

    def _hang_up(self, timeout: float) -> None:
        """Close the line; afterwards the agent has ended and nothing more is heard."""
        assert self._line is not None
        self._line.hang_up(timeout)
        with self._lock:
            reader = self._reader
        if reader is not None and reader is not threading.current_thread():
            reader.join()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._line is not None
        self._line.send(request)

    def _read(self, line: Line) -> None:
        try:
            while text := line.hear():
                self._hear(json.loads(text))
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as e:
            words = f"{self.name}: what its agent said can't be understood ({type(e).__name__}: {e}); it is given up"
            self._post(Note("ERROR", words, source=self.name))
        line.close()
        if not self._ready.done():
            self._ready.set_exception(SourceError(f"{self.name}: the agent ended before it was ready; see {self._log}"))
        elif not self._stopping:
            self._recover()

    @property
    def _log(self) -> str:
        """Where the agent's side writes what has no other place."""
        return str(self._sweep.directory / ".hsm" / "agents" / f"{self.name}.log")

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.pop("ev")
        if kind == "ready":
            if type(event.get("gpus", [])) is not list:
                raise TypeError("gpus is no list")
            if not self._ready.done():
                self._ready.set_result(event)
        elif kind == "unusable":
            self._unusable(_needed(event, "reason", str))
        elif kind == "started":
            self._started(event)
            self._deaths = 0
        elif kind == "finished":
            if event["id"] in self._active:
                self._finished(event["id"], self._outcome(event["id"], event["record"]))
        elif kind == "lost":
            reason, host = _needed(event, "reason", str), _needed(event, "host", str)
            self._finished(event["id"], Outcome.failed(Cause(event["cause"]), reason, host=host))
        elif kind == "command":
            self._answer(event)
        elif kind == "health":
            asked, answer = self._examined.pop(event["id"], (0.0, None))
            if answer is not None:
                answer.set_result(health_of(event, time.monotonic() - asked))
        elif kind == "note":
            self._post(Note(_needed(event, "level", str), _needed(event, "message", str), source=self.name))

    def _unusable(self, reason: str) -> None:
        self._useless = True
        error = SourceError(f"{self.name}: {reason}")
        if not self._ready.done():
            self._ready.set_exception(error)
        else:
            self._post(SourceDown(self.name, reason, final=True))

    def _started(self, event: Mapping[str, Any]) -> None:
        attempt = self._active.get(event["id"])
        if attempt is not None:
            facts = {key: _told(event, key, kind) for key, kind in _FACTS.items()}
            self._post(AttemptStarted(attempt.task.index, attempt.number, attempt.epoch, self.name, **facts))

    def _outcome(self, attempt_id: str, record: object) -> Outcome:
        """What a result record that the agent read there says."""
        return outcome_of(record, attempt_id)

    def _finished(self, attempt_id: str, outcome: Outcome) -> None:
        with self._lock:
            attempt = self._active.pop(attempt_id, None)
        if attempt is not None:
            self._post(AttemptFinished(attempt.task.index, attempt.number, attempt.epoch, self.name, outcome))

    def _answer(self, event: Mapping[str, Any]) -> None:
        answer = self._commands.pop(event["id"], None)
        if answer is None:
            return
        if "error" in event:
            answer.set_exception(Unavailable(f"{self.name}: {event['error']}"))
        else:
            answer.set_result(CommandResult(*(_needed(event, key, kind) for key, kind in _ENDED.items())))

    def _recover(self) -> None:
        """The agent ended by itself: settle what it ran, and start another."""
        self._deaths += 1
        given_up = self._useless or self._deaths >= RESTARTS
        if not self._useless:
            self._post(SourceDown(self.name, self._end_of_agent(), final=given_up))
        self._fence()
        self._hang_up(0.0)
        with self._lock:
            orphans, self._active = list(self._active.values()), {}
        if given_up:
            self._bury(orphans, "its agent is gone, and it left no result")
            return
        self.attach(orphans)
        try:
            self._connect()
        except SourceError as e:
            self._post(SourceDown(self.name, str(e), final=True))
        else:
            self._post(SourceUp(self.name))

    def _end_of_agent(self) -> str:
        """What is known of why the agent is gone."""
        return f"its agent ended by itself; see {self._log}"

    def _bury(self, attempts: Sequence[Attempt], why: str) -> None:
        """Settle attempts by what is here of them; without a result they are lost."""
        for attempt in attempts:
            self._post(settle(self._sweep.records, attempt, why))


_FACTS = {"host": str, "pid": int, "output_dir": str, "gpus": list}
"""what an agent tells of an attempt that started, each with its type"""
_ENDED = {"exit_code": int, "stdout": str, "stderr": str}
"""what it tells of a program that ended"""


def _told(event: Mapping[str, Any], key: str, kind: type) -> Any:
    """A field of an event, None where it is missing; lists are of strings. Raises TypeError where it is none such."""
    value = event.get(key)
    if value is None:
        return None
    odd = type(value) is not kind or (isinstance(value, int) and value.bit_length() > 63)
    if odd or (isinstance(value, list) and not all(type(item) is str for item in value)):
        raise TypeError(f"{key} is {reprlib.repr(value)}")
    return value


def _needed(event: Mapping[str, Any], key: str, kind: type) -> Any:
    """As `_told`, for a field that must be there."""
    value = _told(event, key, kind)
    if value is None:
        raise TypeError(f"{key} is missing")
    return value
