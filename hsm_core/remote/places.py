"""Paths of the launcher's machine as they are here: in what it froze, and in each task's configuration.

Where the files of launcher and tasks are the same there is nothing to be done; payloads that go
to another machine say which folder is where.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FILE = "file://"


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
        _move(config, self.path)
        config.hydra.sweep._get_node("dir").__dict__["_val"] = self._sweep


def _move(node: Any, path: Any) -> None:
    # Written past OmegaConf's own setters: flags and types stay as they are, and nothing is resolved.
    fields = node.__dict__
    content = fields.get("_content")
    if isinstance(content, dict):
        for child in content.values():
            _move(child, path)
    elif isinstance(content, list):
        for child in content:
            _move(child, path)
    elif hasattr(content, "__dict__"):  # a node of one of several types holds another
        _move(content, path)
    value = fields.get("_val")
    if isinstance(value, str) and value.startswith(("/", _FILE)):
        fields["_val"] = path(value)
    elif isinstance(value, Path) and value.is_absolute():
        fields["_val"] = type(value)(path(str(value)))
