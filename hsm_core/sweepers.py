"""What is known of the sweeper that drives a sweep: whether its points are fixed before the first one runs."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_OURS = "hydra_plugins.hydra_hsm.sweeper.HsmSweeper"
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper."


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


def after_a_resume(config: DictConfig) -> str | None:
    """What a sweeper that chooses its points itself does when its sweep is resumed, in words for people.

    None for sweepers whose points are fixed.
    """
    if points_are_fixed(config):
        return None
    name, sweeper = sweeper_name(config), config.hydra.sweeper
    if not _target(config).startswith(_OPTUNA):
        return (
            f"{name} chooses its points itself. Those that it asks for again and that are finished are answered from "
            "their records, all others are new tasks"
        )
    trials, study = sweeper.get("n_trials"), sweeper.get("study_name")
    if sweeper.get("storage") is not None and study is not None:
        return (
            f"{name} goes on with its study '{study}': {trials} trials more. A point that it suggests again and that "
            "is finished is answered from its record"
        )
    if sweeper.get("storage") is not None:
        return (
            f"{name} has a storage but no study_name, so it begins a new study: its points are new tasks. With "
            "hydra.sweeper.study_name it goes on with the study of that name"
        )
    seed = OmegaConf.select(config, "hydra.sweeper.sampler.seed")
    if seed is not None:
        return (
            f"{name} begins again, and with seed {seed} suggests the same points as long as it is told the same "
            "results: finished ones are answered from their records, the rest are run"
        )
    return (
        f"{name} begins again. Without a seed it suggests other points: {trials} new tasks, what is unfinished stays "
        "so. To go on another time, give it hydra.sweeper.sampler.seed, or a storage and a study_name"
    )


def _target(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "hydra.sweeper._target_"))
