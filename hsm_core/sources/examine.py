"""A talk with `hsm_core.remote.checker`, here or on another machine: what it finds becomes steps.

Deciding is pure: each step has a function from the facts to a status and words.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.remote import gpus
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.sources.base import Health
from hsm_core.sources.health import health_of
from hsm_core.sources.steps import Status, Walk
from hsm_core.text import size

AGENT, ROUND_TRIP = "agent", "round trip"
ROUNDS = 20
"""requests of which the median is told"""
LITTLE = 1 << 10
"""MiB of room below which somebody should know"""

Finding = tuple[Status, str]


class Input(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...


class Output(Protocol):
    def readline(self, limit: int, /) -> bytes: ...


class Talk(Protocol):
    """The input and output of a program of ours, here or there."""

    @property
    def stdin(self) -> Input: ...

    @property
    def stdout(self) -> Output: ...

    def errors(self) -> str:
        """What it wrote to its standard error."""


def examine(
    walk: Walk,
    talk: Talk,
    hear: Callable[[], Mapping[str, Any]],
    steps: Mapping[str, Callable[[Mapping[str, Any]], Finding]],
    config: SourceConfig,
    folder: str,
    project: str | None = None,
) -> None:
    """Walk through these steps by the checker's words, which `hear` gets, then through the agent's.

    `folder`: where hsm writes; `project`: the folder of the app there. Raises SourceError where nothing sensible is
    heard any more.
    """
    wanted = {
        "steps": list(steps),
        "folder": folder,
        "project": project,
        "gpus": gpus.request(config.gpus, None),
        "mode": config.worker or "fork",
    }
    try:
        _say(talk, wanted)
        for name, decide in steps.items():
            facts = hear()
            if facts["step"] != name:
                raise ValueError(f"it tells of {facts['step']!r} in place of {name}")
            status, told = decide(facts)
            if status is Status.FAILED:
                walk.fail(told)
                return
            walk.reach(name, told, status)
        walk.reach(AGENT, _health_words(_ask(talk, 0)))
        trips = [_ask(talk, number).latency for number in range(1, ROUNDS + 1)]
        walk.reach(ROUND_TRIP, f"{statistics.median(trips):.1f} ms (median of {ROUNDS})")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        raise SourceError(f"what our program says can't be understood ({type(e).__name__}: {e}){_said(talk)}") from e


def _say(talk: Talk, words: Mapping[str, Any]) -> None:
    try:
        talk.stdin.write(json.dumps(words).encode() + b"\n")
        talk.stdin.flush()
    except OSError as e:
        raise SourceError(f"our program ended: {e}{_said(talk)}") from e


def _ask(talk: Talk, number: int) -> Health:
    """Ask the agent how its host is, but for GPUs. Raises SourceError where it has ended."""
    asked = time.monotonic()
    _say(talk, {"do": "health", "id": number, "gpus": False})
    text = talk.stdout.readline(LINE_LIMIT)
    if not text:
        raise SourceError(f"the agent did not answer{_said(talk)}")
    event = json.loads(text)
    if event["ev"] != "health" or event["id"] != number:
        raise ValueError(f"the agent says {str(event)[:200]}")
    return health_of(event, time.monotonic() - asked)


def _said(talk: Talk) -> str:
    words = talk.errors().strip()
    return f". It said:\n{words[-2000:]}" if words else ""


def _health_words(health: Health) -> str:
    words = [] if health.load is None else [f"load {health.load:.2f} a core"]
    if health.memory_total is not None and health.memory_available is not None:
        free, total = (size(int(mebibytes) << 20) for mebibytes in (health.memory_available, health.memory_total))
        words.append(f"{free} of {total} memory free")
    return ", ".join(words) or "it answers"


# --- what is found


def python_found(facts: Mapping[str, Any]) -> str:
    return f"{facts['python']}, {facts['executable']}"


def hydra_found(facts: Mapping[str, Any]) -> Finding:
    """Whether tasks will find Hydra, and the launcher's."""
    version, ours = facts["version"], importlib.metadata.version("hydra-core")
    if version is None:
        if facts["missing"]:
            return Status.FAILED, f"it is not installed there: pip install hydra-core=={ours} in the environment"
        return Status.FAILED, f"it can't be imported there: {facts['reason']}"
    if _minor(version) != _minor(ours):
        advice = f"here it is {ours}: tasks may see other defaults than here"
        return Status.WARNING, f"{version}; {advice}"
    return Status.GOOD, str(version)


def _minor(version: str) -> Sequence[str]:
    return version.split(".")[:2]


def folder_found(facts: Mapping[str, Any], folder: str) -> Finding:
    if facts["reason"] is not None:
        return Status.FAILED, f"{folder} can't be written to: {facts['reason']}"
    return Status.GOOD, folder


def disk_found(facts: Mapping[str, Any]) -> Finding:
    free, percent = facts["free"], facts["percent"]
    if free is None or percent is None:
        return Status.WARNING, "it does not tell how much room there is"
    words = f"{size(int(free * (1 << 20)))} free ({percent:.0f} %)"
    return (Status.WARNING, f"{words}; make room, or tasks will fail") if free < LITTLE else (Status.GOOD, words)


def project_found(facts: Mapping[str, Any], folder: str) -> Finding:
    if facts["reason"] is not None:
        return Status.FAILED, f"project_dir {folder} can't be read there: {facts['reason']}"
    return Status.GOOD, folder


def gpus_found(facts: Mapping[str, Any], config: SourceConfig) -> Finding:
    """What tasks lease; nothing is wrong with a machine without GPUs of which none was asked for."""
    models, reason = list(facts["models"]), facts["reason"]
    if reason is not None:
        return Status.WARNING if config.gpus is None else Status.FAILED, str(reason)
    if not models:
        return Status.GOOD, "none"
    kinds = ", ".join(f"{models.count(model)} x {model or 'GPU'}" for model in dict.fromkeys(models))
    return Status.GOOD, f"{kinds}; leases in {facts['leases']}"
