"""Hydra's own `run_job`, with cheaper parts that do the same.

`run_job` copies the whole configuration four times and writes all of it as YAML, some 20 ms for a task that
does nothing. The copies are made by `hsm_core.remote.clone` here, the texts by `hsm_core.remote.yaml_text`; what
`run_job` does, and in which order, stays Hydra's.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsm_core.remote.clone import clone
from hsm_core.remote.yaml_text import YamlTexts

_LINES = ("1.3.", "1.4.")
"""the lines of Hydra whose `run_job` was read"""


def make_lean(texts: YamlTexts) -> None:
    """Give this process's Hydra the cheaper parts, if it is of a line they were made for."""
    import hydra
    import hydra.conf
    from hydra.core import utils
    from hydra.core.hydra_config import HydraConfig

    if not hydra.__version__.startswith(_LINES):
        return

    def save_config(cfg: Any, filename: str, output_dir: Path) -> None:
        output_dir.mkdir(parents=True, exist_ok=True)
        with open(output_dir / filename, "w", encoding="utf-8") as file:
            file.write(texts.text(cfg))

    parts: Any = utils
    parts.copy = SimpleNamespace(copy=copy.copy, deepcopy=clone)
    parts._save_config = save_config
    HydraConfig.set_config = _set_config  # type: ignore[method-assign]


def _set_config(self: Any, cfg: DictConfig) -> None:
    """`HydraConfig.set_config` (hydra/core/hydra_config.py); only the copy is made in another way."""
    from hydra.conf import HydraConf

    OmegaConf.set_readonly(cfg.hydra, True)
    node_type = OmegaConf.get_type(cfg, "hydra")
    assert node_type is not None and issubclass(node_type, HydraConf)
    masked = DictConfig(content={})
    node = clone(cfg._get_node("hydra"))
    node.__dict__["_parent"] = cfg
    masked.__dict__["_content"]["hydra"] = node
    self.cfg = masked
