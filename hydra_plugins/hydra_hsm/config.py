"""The `hydra.launcher` and `hydra.sweeper` nodes of hsm, and its resolver.

Hydra imports this on every start of every app: nothing heavy may stand here.
"""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hsm_core.config import ComputeConfig, HsmConfig, LoggingConfig, ResultCollectionConfig
from hsm_core.task import task_name


def launcher_node() -> dict[str, Any]:
    """Every key of the schema, all unset: an unset key leaves hsm_config.yaml or the default its say."""
    node: dict[str, Any] = {"_target_": "hydra_plugins.hydra_hsm.launcher.HsmLauncher"}
    node.update((f.name, None) for f in fields(HsmConfig))
    node["compute_sources"] = {}
    for name, section in (
        ("compute", ComputeConfig),
        ("result_collection", ResultCollectionConfig),
        ("logging", LoggingConfig),
    ):
        node[name] = {f.name: None for f in fields(section)}
    return node


SWEEPER_NODE: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_hsm.sweeper.HsmSweeper",
    "params": {},
    "paired": [],
    "max_runs": None,
}

store = ConfigStore.instance()
store.store(group="hydra/launcher", name="hsm", node=launcher_node(), provider="hydra-hsm")
store.store(group="hydra/sweeper", name="hsm", node=SWEEPER_NODE, provider="hydra-hsm")

# OmegaConf 2.4 renames register_new_resolver to register_resolver, the name of an older thing in 2.3.
_NEW = "replace" in signature(OmegaConf.register_resolver).parameters
_register: Any = OmegaConf.register_resolver if _NEW else OmegaConf.register_new_resolver
_register("hsm_task", lambda number: task_name(int(number)), replace=True)
