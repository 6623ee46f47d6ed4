"""YAML as Hydra reads it in its own configs, with the line of every key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from hsm_core.config.file import HALF, Key, excess, is_text


class YamlError(ValueError):
    """The text is no YAML; `line` is where, from 1."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)


@dataclass(frozen=True)
class Lines:
    """A document's data, and the line (from 1) of every key and list item in it."""

    data: Any
    lines: Mapping[Key, int]


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as OmegaConf does, whose own loader is private and moves between its versions."""


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag not in (f"{_TAG}timestamp", f"{_TAG}float")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"""(?: [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
              | [-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+
              | \.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
              | [-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
              # What PyYAML takes for a float by itself stays one (yaml/resolver.py).
              | [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?
              | \.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
              | [-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
              | [-+]?\.(?:inf|Inf|INF)
              | \.(?:nan|NaN|NAN) )\Z""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def read_yaml(text: str) -> Lines:
    """Parse one document. Raises YamlError, also for a key that stands twice in one mapping.

    Scalars mean what they mean in a Hydra config: `1e-3` is a number, a date is text, and
    interpolations stay as they are.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Key, int] = {}
        if (too_much := excess(node)) is not None:
            raise YamlError(too_much, 1)
        if node is not None:
            _note_lines(node, (), lines, ())
        return Lines(None if node is None else loader.construct_document(node), lines)
    except RecursionError as e:
        raise YamlError("nested too deep", 1) from e
    except yaml.reader.ReaderError as e:
        raise YamlError(f"not readable as text: {e.reason}", text.count("\n", 0, e.position) + 1) from e
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark is not None else 1
        parts = [part for part in (e.context, e.problem) if part]
        raise YamlError(f"not valid YAML: {', '.join(parts)}", line) from e


def _note_lines(node: yaml.Node, at: Key, lines: dict[Key, int], above: tuple[yaml.Node, ...]) -> None:
    if any(node is other for other in above):
        raise YamlError("an anchor refers to itself", node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode) and not is_text(node.value):
        raise YamlError(HALF, node.start_mark.line + 1)
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*at, i)] = item.start_mark.line + 1
            _note_lines(item, (*at, i), lines, above)
    elif isinstance(node, yaml.MappingNode):
        own: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in own:
                    raise YamlError(f"{key.value} stands here twice; the first is in line {own[key.value]}", line)
                own[key.value] = lines[(*at, key.value)] = line
                _note_lines(value, (*at, key.value), lines, above)
