"""What is known of the sweeper that drives a sweep: whether its points are fixed before the first one runs."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_OURS = "hydra_plugins.hydra_hsm.sweeper.HsmSweeper"


def points_are_fixed(config: DictConfig) -> bool:
    """Whether the sweeper has a list of points; any other than Hydra's basic one and hsm's may choose from results."""
    return _target(config) in (_BASIC, _OURS)


def launches_once(config: DictConfig) -> bool:
    """Whether the sweeper hands over all its points by one call of `launch`."""
    batch: Any = OmegaConf.select(config, "hydra.sweeper.max_batch_size")
    return points_are_fixed(config) and batch is None


def sweeper_name(config: DictConfig) -> str:
    """The name of the sweeper's class."""
    return _target(config).rpartition(".")[2]


def _target(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "hydra.sweeper._target_"))
