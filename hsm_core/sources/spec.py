"""What the compute side is told of an attempt, as JSON."""

from __future__ import annotations

from typing import Any

from hsm_core.config import HsmConfig
from hsm_core.config.sizes import limit_in_bytes
from hsm_core.task import Attempt


def spec(attempt: Attempt, config: HsmConfig) -> dict[str, Any]:
    """What a supervisor has to know, but for where it leaves its results."""
    return {
        "id": attempt.id,
        "name": attempt.task.name,
        "task": attempt.task.index,
        "attempt": attempt.number,
        "epoch": attempt.epoch,
        "source": attempt.source,
        "overrides": attempt.task.overrides,
        "timeout": attempt.timeout,
        "grace": attempt.grace,
        "memory": attempt.memory,
        "max_output": limit_in_bytes(config.logging.max_output),
    }
