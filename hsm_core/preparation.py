"""What a launcher settles before it looks at the sweep's directory: its configuration and its sources.

Little is imported here, so that sources can warm up early, while the rest is imported and the jobs are checked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.types import TaskFunction
from omegaconf import DictConfig

from hsm_core import entry, selection
from hsm_core.config import HsmConfig
from hsm_core.config import load as config_load
from hsm_core.exceptions import ConfigError
from hsm_core.lanes import Lane, Lanes
from hsm_core.sources import load_source
from hsm_core.sources.local import cores
from hsm_core.strategies import load_strategy
from hsm_core.sweepers import points_are_fixed, sweeper_name


def read_config(settings: Any, hydra_config: DictConfig, function: TaskFunction) -> HsmConfig:
    """The configuration of hsm from hsm_config.yaml and `settings`, the resolved `hydra.launcher` node.

    Raises ConfigError.
    """
    config = config_load.load(settings, cwd=Path.cwd(), app_dir=entry.app_dir(entry.find_entry(function)))
    if config.tasks is not None and not points_are_fixed(hydra_config):
        name = sweeper_name(hydra_config)
        words = f"hydra.launcher.tasks: {name} chooses its points itself and needs the results of all of them"
        raise ConfigError([words])
    return config


def choose_sources(config: HsmConfig) -> Lanes:
    """The sources of the sweep, not started yet, and the strategy that deals tasks to them."""
    chosen = selection.select(config.sources, config.compute_sources)
    default = "priority" if selection.priorities_given(chosen) else "round_robin"
    strategy = load_strategy(config.strategy or default, seed=config.seed, base=Path.cwd())
    lanes = {}
    for selected in chosen:
        source = load_source(selected, config.gpus_per_task)
        lanes[selected.name] = Lane(source, selected.config.weight, selected.rank)
    return Lanes(lanes, strategy)


def warm_up(config: HsmConfig, lanes: Lanes, hydra_config: DictConfig) -> None:
    """Let sources begin with what is the same for every new sweep; where there may be one to resume, with nothing."""
    directory = Path(str(hydra_config.hydra.sweep.dir)).absolute()
    if not os.path.lexists(directory / ".hsm"):
        for source in lanes:
            source.warm_up(directory, config, threads_per_task(config, lanes))


def threads_per_task(config: HsmConfig, lanes: Lanes) -> int:
    """Threads a task may start: as configured, else so that all local slots together ask for no more than the cores."""
    slots = sum(source.slots for source in lanes if source.type == "local")
    return config.threads_per_task or max(1, cores() // max(1, slots))
