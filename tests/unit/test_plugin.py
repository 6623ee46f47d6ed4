"""The plugin is light to discover, and its nodes hold every key of the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

from hsm_core.config import ComputeConfig, HsmConfig, LoggingConfig, ResultCollectionConfig
from hydra_plugins.hydra_hsm.config import LAUNCHER_NODE

HEAVY = {"rich", "fabric", "paramiko", "submitit", "cloudpickle", "psutil", "click", "rich_click", "tblib", "jinja2"}

PROBE = """
import json, sys
from hydra.core.plugins import Plugins
Plugins.instance()
print(json.dumps(sorted(sys.modules)))
"""


def names(schema: type) -> set[str]:
    return {f.name for f in fields(schema)}


def test_the_node_has_every_key_of_the_schema() -> None:
    assert set(LAUNCHER_NODE) == names(HsmConfig) | {"_target_"}
    assert set(LAUNCHER_NODE["compute"]) == names(ComputeConfig)
    assert set(LAUNCHER_NODE["result_collection"]) == names(ResultCollectionConfig)
    assert set(LAUNCHER_NODE["logging"]) == names(LoggingConfig)


def test_discovery_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "hydra_plugins.hydra_hsm.launcher" in imported
    brought = {name for name in imported if name.split(".")[0] == "hsm_core"}
    assert not brought
    assert not imported & HEAVY
