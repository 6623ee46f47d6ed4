"""Configurations as YAML, as `OmegaConf.to_yaml` writes them; sections that were written before are not written again.

Hydra saves its own configuration with every task, 200 lines of which a sweep changes five. A
section is known again by its place and by `repr`, which tells 1, 1.0, True and '1' apart.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import yaml
from omegaconf import DictConfig, EnumNode, ListConfig, OmegaConf

from hsm_core.remote.clone import LEAVES

_KNOWN_LIMIT = 5_000
"""sections that are kept"""
_DEPTH = 3
"""levels of sections that are known by themselves"""
_PLAIN = (str, int, float, bool, bytes, type(None))
"""what YAML writes in one way wherever it stands, and never as a reference to an earlier place"""


class YamlTexts:
    """Writes configurations, and remembers the texts of their sections."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], str] = {}

    def text(self, config: Any) -> str:
        """The same as `OmegaConf.to_yaml(config)`."""
        try:
            container = _plain(config)
        except TypeError:
            return OmegaConf.to_yaml(config)
        return self._mapping(container, 0) if type(container) is dict and container else _dump(container)

    def _mapping(self, mapping: dict[Any, Any], depth: int) -> str:
        return "".join([self._section(key, value, depth) for key, value in mapping.items()])

    def _section(self, key: Any, value: Any, depth: int) -> str:
        name = depth, repr((key, value))
        text = self._known.get(name)
        if text is None:
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            text = self._known[name] = self._written(key, value, depth)
        return text

    def _written(self, key: Any, value: Any, depth: int) -> str:
        if depth < _DEPTH and type(value) is dict and value:
            head = self._section(key, {}, depth)
            if head.count("\n") == 1:  # else the key is too long to stand in a line with its value
                return f"{head.removesuffix(' {}' + chr(10))}\n{self._mapping(value, depth + 1)}"
        nested: Any = {key: value}
        for _ in range(depth):
            nested = {"_": nested}
        # Nested as deep as it stands: its place in the line decides where a long text is folded.
        return _dump(nested).split("\n", depth)[-1]


def _dump(container: Any) -> str:
    """How `OmegaConf.to_yaml` writes a container (omegaconf/omegaconf.py)."""
    from omegaconf._utils import get_omega_conf_dumper

    text: str = yaml.dump(
        container, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper()
    )
    return text


def _plain(node: Any) -> Any:
    """`OmegaConf.to_container(node, enum_to_str=True)`, where all in it is plain; else raises TypeError."""
    kind = type(node)
    if kind in LEAVES or kind is EnumNode:
        value = node.__dict__["_val"]
        if isinstance(value, Enum):
            return value.name
        if type(value) in _PLAIN:
            return value
    elif kind is DictConfig or kind is ListConfig:
        content = node.__dict__["_content"]
        if type(content) is dict:
            if all([type(key) in _PLAIN for key in content]):
                return {key: _plain(value) for key, value in content.items()}
        elif type(content) is list:
            return [_plain(value) for value in content]
        elif type(content) in _PLAIN:
            return content
    raise TypeError(f"{kind.__name__} is not plain")
