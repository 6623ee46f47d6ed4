"""Composing the configuration of one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def compose_job(config_loader: Any, config: Any, overrides: Sequence[str], index: int) -> Any:
    """The whole configuration of the task with these overrides, as Hydra's basic launcher makes it.

    `config` is the composed configuration of the sweep itself. Raises what Hydra raises.
    """
    from omegaconf import open_dict

    job = config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id = str(index)
        job.hydra.job.num = index
    return job
