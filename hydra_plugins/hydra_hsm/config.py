"""The `hydra.launcher` and `hydra.sweeper` nodes of hsm, and its resolvers.

Hydra imports this on every start of every app, so nothing of hsm_core is imported here: the
names of the schema's keys (`hsm_core.config`) stand here once more, and a test compares them.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

KEYS = [
    "config_file",
    "sweep_file",
    "sources",
    "strategy",
    "dependency",
    "seed",
    "worker",
    "isolation",
    "timeout",
    "grace",
    "stream",
    "raise_on_failure",
    "fail_fast",
    "on_existing",
    "on_interrupt",
    "resume",
    "retry_failed",
    "tasks",
    "takeover",
    "accept_config_change",
    "original_code",
    "dry_run",
    "threads_per_task",
    "gpus_per_task",
    "memory_per_task",
]
COMPUTE = [
    "health_check_interval",
    "result_collection_interval",
    "source_failure_threshold",
    "health_check_failure_threshold",
    "auto_disable_unhealthy_sources",
    "retry_attempts",
    "retry_delay",
    "exponential_backoff",
    "unreachable_timeout",
    "orphan_timeout",
    "ssh_compression",
    "rsync_compression",
]
RETRY = ["error", "timeout", "lost"]
OOM = ["times", "mem", "max"]
RESULT_COLLECTION = [
    "batch_size",
    "parallel_transfers",
    "immediate_error_collection",
    "continuous_sync",
    "cleanup_remote_on_success",
]
LOGGING = ["level", "file_logging", "source_specific_logs", "aggregated_logs", "max_output"]

# A key that is None is unset: hsm_config.yaml or the default has its say.
LAUNCHER_NODE: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_hsm.launcher.HsmLauncher",
    **dict.fromkeys(KEYS),
    "compute_sources": {},
    "compute": dict.fromkeys(COMPUTE),
    "retry": {**dict.fromkeys(RETRY), "oom": dict.fromkeys(OOM)},
    "result_collection": dict.fromkeys(RESULT_COLLECTION),
    "logging": dict.fromkeys(LOGGING),
}
SWEEPER_NODE: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_hsm.sweeper.HsmSweeper",
    "params": {},
    "paired": [],
    "max_runs": None,
}

store = ConfigStore.instance()
# No struct: what is misspelt reaches hsm, which knows what was meant; and sources need no `+`.
open_node = OmegaConf.create(LAUNCHER_NODE, flags={"struct": False})
store.store(group="hydra/launcher", name="hsm", node=open_node, provider="hydra-hsm")
store.store(group="hydra/sweeper", name="hsm", node=SWEEPER_NODE, provider="hydra-hsm")


def _task_name(number: Any) -> str:
    from hsm_core.remote.names import task_name

    return task_name(int(number))


# OmegaConf 2.4 renames register_new_resolver to register_resolver, the name of an older thing in 2.3.
_NEW = "replace" in signature(OmegaConf.register_resolver).parameters
_register: Any = OmegaConf.register_resolver if _NEW else OmegaConf.register_new_resolver
_register("hsm_task", _task_name, replace=True)


def _environment_value(sweep_file: str, name: str) -> Any:
    from hsm_core.sweep_file import environment_value

    return environment_value(sweep_file, name)


_register("hsm_env", _environment_value, replace=True)
