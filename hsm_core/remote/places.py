"""Paths of the launcher's machine as they are here: in what it froze, and in each task's configuration.

Where the files of launcher and tasks are the same there is nothing to be done; payloads that go
to another machine say which folder is where.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_FILE = "file://"
_LONGEST, _SHOWN = 1000, 5
"""characters of a path that is told of as missing, and how many of them are"""


class Places:
    """Folders of the launcher, each with the one here that it is in; the deepest folder counts.

    `sweep`: the sweep's directory here.
    """

    def __init__(self, folders: Sequence[Sequence[str]], sweep: str) -> None:
        self.folders = sorted(((here, there) for here, there in folders), key=lambda pair: -len(pair[0]))
        self._sweep = sweep

    def path(self, text: str) -> str:
        """A path or `file://` address; as it was where it lies in none of the folders."""
        if text.startswith(_FILE):
            return _FILE + self.path(text[len(_FILE) :])
        for folder, place in self.folders:
            if text == folder or text.startswith(os.path.join(folder, "")):
                return place + text[len(folder.rstrip("/")) :]
        return text

    def move(self, config: Any) -> None:
        """Put the paths here in place of the launcher's in a composed configuration, to be done once."""
        for fields in _leaves(config):
            value = fields["_val"]
            if isinstance(value, str) and value.startswith(("/", _FILE)):
                fields["_val"] = self.path(value)
            elif isinstance(value, Path) and value.is_absolute():
                fields["_val"] = type(value)(self.path(str(value)))
        config.hydra.sweep._get_node("dir").__dict__["_val"] = self._sweep

    def missing(self, config: Any) -> list[str]:
        """Absolute paths in the configuration, without those of `hydra`, where there is nothing here; a few of them."""
        values = (fields["_val"] for key in config if key != "hydra" for fields in _leaves(config._get_node(key)))
        paths = (str(value) for value in values if isinstance(value, (str, Path)) and str(value).startswith("/"))
        return [path for path in dict.fromkeys(paths) if len(path) < _LONGEST and not os.path.exists(path)][:_SHOWN]


def _leaves(node: Any) -> Iterator[dict[str, Any]]:
    """The fields of all nodes with a value; read and written past OmegaConf's own ways, which resolve and check."""
    fields = node.__dict__
    content = fields.get("_content")
    if isinstance(content, (dict, list)):
        for child in content.values() if isinstance(content, dict) else content:
            yield from _leaves(child)
    elif hasattr(content, "__dict__"):  # a node of one of several types holds another
        yield from _leaves(content)
    if "_val" in fields:
        yield fields
