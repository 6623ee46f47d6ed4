"""What Hydra gives a launcher for a multirun, and the composer that all of it shares."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hsm_core.remote.compose import Composer


@dataclass(frozen=True)
class Multirun:
    config: DictConfig
    """the composed configuration of the sweep, with its `hydra` node"""
    context: HydraContext
    function: TaskFunction
    composer: Composer

    @classmethod
    def of(cls, config: DictConfig, context: HydraContext, function: TaskFunction) -> Multirun:
        """The multirun of a launcher that Hydra has set up so."""
        return cls(config, context, function, Composer(context.config_loader, config))
