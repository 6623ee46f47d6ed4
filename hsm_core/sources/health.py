"""What an agent says of its host's health (`hsm_core.remote.health`), checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hsm_core.sources.base import GpuHealth, Health
from hsm_core.text import printable

MOST_GPUS = 1024
"""of one host"""
_WORDS = 1000
"""characters of a text that are kept"""


def health_of(event: Mapping[str, Any], seconds: float) -> Health:
    """What an event `health` says that came so many seconds after it was asked for.

    Raises TypeError, ValueError and LookupError where it makes no sense.
    """
    gpus = event["gpus"]
    if type(gpus) is not list or len(gpus) > MOST_GPUS:
        raise TypeError("gpus is no list of them")
    problem = event["gpu_problem"]
    return Health(
        load=_maybe(event, "load"),
        memory_total=_maybe(event, "memory_total"),
        memory_available=_maybe(event, "memory_available"),
        disk_free=_maybe(event, "disk_free"),
        disk_free_percent=_maybe(event, "disk_free_percent"),
        uptime=_number(event, "uptime"),
        gpus=tuple(_gpu(gpu) for gpu in gpus),
        gpu_problem=None if problem is None else _text(event, "gpu_problem"),
        latency=1000 * max(0.0, seconds - _number(event, "took")),
    )


def _gpu(gpu: Mapping[str, Any]) -> GpuHealth:
    return GpuHealth(
        id=_text(gpu, "id"),
        model=_text(gpu, "model"),
        memory_total=_maybe(gpu, "memory_total"),
        memory_free=_maybe(gpu, "memory_free"),
        utilisation=_maybe(gpu, "utilisation"),
    )


def _maybe(facts: Mapping[str, Any], key: str) -> float | None:
    return None if facts[key] is None else _number(facts, key)


def _number(facts: Mapping[str, Any], key: str) -> float:
    value = facts[key]
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{key} is {printable(repr(value), 100)}")
    return float(value)


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts[key]
    if type(value) is not str:
        raise TypeError(f"{key} is a {type(value).__name__}")
    return printable(value, _WORDS)
