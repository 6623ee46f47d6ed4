"""Reading hsm_config.yaml: its values, the line of each, and what is wrong with the YAML itself.

What the keys mean is checked elsewhere (`hsm_core.config.check`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

FILE_NAME = "hsm_config.yaml"

Key = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""

_TAG = "tag:yaml.org,2002:"
HALF = "holds half a character, written as \\ud800 to \\udfff; write the character itself"
SIZE_LIMIT = 4 << 20
"""bytes of a file that people write"""
VALUE_LIMIT = 100_000
"""keys and values that it may stand for; anchors that refer to anchors multiply"""


@dataclass(frozen=True)
class Document:
    """A configuration file as it was written."""

    data: Any
    """mappings, lists and plain values; None when the file is empty or no YAML"""
    lines: Mapping[Key, int]
    """line of every key and list item, from 1"""
    problems: tuple[tuple[Key, int, str], ...]
    """key, line and text of what is wrong as YAML"""


def locate(cwd: Path, app_dir: Path | None) -> Path | None:
    """The configuration file that holds here, None if there is none.

    Looked for as `hsm_config.yaml` in `cwd`, then in `app_dir`, then as `hsm/config.yaml` in
    `$XDG_CONFIG_HOME` (`~/.config` where that is unset or no absolute path).
    """
    xdg = os.environ.get("XDG_CONFIG_HOME", "")
    user = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~/.config"))
    candidates = [cwd / FILE_NAME]
    if app_dir is not None:
        candidates.append(app_dir / FILE_NAME)
    candidates.append(user / "hsm" / "config.yaml")
    # Whatever has that name is meant to be read: what can't be is told, and not passed over.
    return next((path for path in candidates if os.path.lexists(path)), None)


def read(path: Path) -> Document:
    """Parse the file, safe tags only. Raises OSError when it can't be read, or is larger than `SIZE_LIMIT`.

    Beyond plain YAML: `${oc.env:NAME}` and OmegaConf's other `oc.` resolvers are replaced (other
    `${..}` stays, it belongs to a shell); `12:00:00` and dates are text, not a number or a date.
    """
    raw = read_bytes(path)
    try:
        loader = yaml.SafeLoader(raw)
        node = loader.get_single_node()
        if (too_much := excess(node)) is not None:
            return Document(None, {}, (((), 1, too_much),))
    except RecursionError:
        return Document(None, {}, (((), 1, "nested too deep"),))
    except yaml.reader.ReaderError as e:
        where = e.position if isinstance(e.position, int) else 0
        return Document(None, {}, (((), raw.count(b"\n", 0, where) + 1, f"not readable as text: {e.reason}"),))
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark is not None else 1
        return Document(None, {}, (((), line, _syntax(e)),))
    reader = _Reader(loader)
    data = None if node is None else reader.value(node, ())
    return Document(data, reader.lines, tuple(reader.problems))


def read_bytes(path: Path) -> bytes:
    """What is in a file that people write. Raises OSError when it can't be read or is too large for one."""
    with open(path, "rb") as f:
        raw = f.read(SIZE_LIMIT + 1)
    if len(raw) > SIZE_LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {SIZE_LIMIT >> 20} MiB; is it the right file?")
    return raw


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold it. YAML takes the two `\\u` that JSON writes for one character for two halves of one."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def excess(node: yaml.Node | None) -> str | None:
    """What is wrong with a document that stands for more than `VALUE_LIMIT` values, None if it doesn't."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0  # for a node in itself, which is told elsewhere
            below = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
        return sizes[id(node)]

    if node is None or size(node) <= VALUE_LIMIT:
        return None
    return f"stands for more than {VALUE_LIMIT} values; anchors that refer to anchors multiply"


def _syntax(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    advice = "; indent with spaces, not tabs" if "'\\t'" in (error.problem or "") else ""
    return f"not valid YAML: {', '.join(parts)}{advice}"


class _Reader:
    """Turns YAML nodes into values and notes the line of each."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.lines: dict[Key, int] = {}
        self.problems: list[tuple[Key, int, str]] = []
        self._loader = loader
        self._open: set[int] = set()
        self._flattened: set[int] = set()

    def value(self, node: yaml.Node, at: Key) -> Any:
        if id(node) in self._open:
            self._problem(node, at, "refers to itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, at)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, at)
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, at)
        finally:
            self._open.discard(id(node))

    def _problem(self, node: yaml.Node, at: Key, text: str) -> None:
        self.problems.append((at, node.start_mark.line + 1, text))

    def _mapping(self, node: yaml.MappingNode, at: Key) -> dict[str, Any] | None:
        if node.tag != f"{_TAG}map":
            self._problem(node, at, f"unknown YAML tag {node.tag}")
            return None
        # An aliased node is read again at each place, but flattening it in place works once only.
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            self._find_duplicates(node, at)
            try:
                self._loader.flatten_mapping(node)
            except yaml.MarkedYAMLError as e:
                self._problem(node, at, _syntax(e))
                return None
        out: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, at, "a key must be a plain word; text with { or [ needs quotes")
                continue
            self.lines[(*at, key.value)] = key.start_mark.line + 1
            out[key.value] = self.value(value, (*at, key.value))
        return out

    def _find_duplicates(self, node: yaml.MappingNode, at: Key) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                self._problem(key, (*at, key.value), f"stands here twice; the first is in line {first[key.value]}")
            first.setdefault(key.value, line)

    def _sequence(self, node: yaml.SequenceNode, at: Key) -> list[Any] | None:
        if node.tag != f"{_TAG}seq":
            self._problem(node, at, f"unknown YAML tag {node.tag}")
            return None
        out = []
        for i, item in enumerate(node.value):
            self.lines[(*at, i)] = item.start_mark.line + 1
            out.append(self.value(item, (*at, i)))
        return out

    def _scalar(self, node: yaml.ScalarNode, at: Key) -> Any:
        if node.tag == f"{_TAG}str":
            return self._resolved(node, at)
        # YAML 1.1 reads a walltime of 12:00:00 as 43200; nobody means that here.
        if node.tag == f"{_TAG}timestamp" or (node.tag in (f"{_TAG}int", f"{_TAG}float") and ":" in node.value):
            return node.value
        try:
            return self._loader.construct_object(node)
        except yaml.MarkedYAMLError as e:
            self._problem(node, at, _syntax(e))
            return None
        except (ValueError, LookupError):
            self._problem(node, at, f"'{node.value}' does not fit its YAML tag {node.tag}")
            return None

    def _resolved(self, node: yaml.ScalarNode, at: Key) -> Any:
        if not is_text(node.value):
            self._problem(node, at, HALF)
            return None
        if "${oc." not in node.value:
            return node.value
        try:
            return OmegaConf.create([node.value])[0]
        except OmegaConfBaseException as e:
            self._problem(node, at, f"'{node.value}': {str(e).splitlines()[0]}")
            return None
