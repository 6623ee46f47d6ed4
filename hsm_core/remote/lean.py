"""Hydra's own `run_job`, with cheaper parts that do the same.

`run_job` copies the whole configuration four times and writes all of it as YAML, some 20 ms for a task that
does nothing. The copies are made by `hsm_core.remote.clone` here, the texts by `hsm_core.remote.yaml_text`, and
interpolations are parsed once; what `run_job` does, and in which order, stays Hydra's.
"""

from __future__ import annotations

import contextlib
import copy
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omegaconf.base
from omegaconf import DictConfig, OmegaConf, grammar_parser

from hsm_core.remote.clone import clone
from hsm_core.remote.yaml_text import YamlTexts

_LINES = ("1.3.", "1.4.")
"""the lines of Hydra whose `run_job` was read"""
_TREES = 10_000
"""parsed interpolations that are kept"""


def make_lean(texts: YamlTexts) -> None:
    """Give this process's Hydra the cheaper parts, if it is of a line they were made for."""
    import hydra
    import hydra.conf
    from hydra.core import utils
    from hydra.core.hydra_config import HydraConfig

    # Trees are only read. Those of the zygote are there in all its children.
    interpolations: Any = omegaconf.base
    interpolations.parse = _parse
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


_parse = lru_cache(maxsize=_TREES)(grammar_parser.parse)


def parse_ahead(node: Any) -> None:
    """Parse the interpolations below a node, which each task is about to resolve."""
    content = node.__dict__.get("_content")
    for child in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        parse_ahead(child)
    text = node.__dict__.get("_val")
    if isinstance(text, str) and "${" in text:
        with contextlib.suppress(Exception):  # whoever resolves it gets to hear of what is wrong with it
            _parse(text)


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
