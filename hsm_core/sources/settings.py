"""`hsm sources validate`: what hsm will use for a source, where that is said, and what is wrong with it.

Nothing is connected to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from hsm_core.config import SourceConfig
from hsm_core.config.file import read
from hsm_core.config.sources import SETTINGS_OF_CLUSTERS
from hsm_core.exceptions import SelectionError, SourceError
from hsm_core.selection import Selected
from hsm_core.sources import class_of, local
from hsm_core.sources.steps import bare

DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    origin: str = DEFAULT
    """the line or file that says so"""
    problem: str = ""
    """what is wrong with it, and what to do"""


Origin = Callable[[str], str]
"""Where the configuration of a source says something about this key: `hsm_config.yaml:4`, or `DEFAULT`"""


def settings(selected: Selected, config_file: str | None) -> Iterator[Setting]:
    """The settings of a source, in the order in which they matter."""
    name, config = selected.name, selected.config
    origin = _origin(name, config_file)
    if config.type == "ssh" or (config.type == "hpc" and config.host is not None):
        from hsm_core.sources.ssh.settings import settings as settings_of_host

        yield from settings_of_host(name, config, origin)
    elif config.type == "local":
        yield _python(name, config, origin)
    else:
        try:
            class_of(selected)
        except SelectionError as e:
            yield Setting("type", config.type, origin("type"), bare(str(e), name))
    yield from as_given(config, origin)


def _origin(name: str, config_file: str | None) -> Origin:
    if config_file is None:
        return lambda key: DEFAULT
    path = Path(config_file)
    lines = read(path).lines
    shown = path.name if path.parent == Path.cwd() else config_file

    def origin(key: str) -> str:
        line = lines.get(("compute_sources", name, key))
        return DEFAULT if line is None else f"{shown}:{line}"

    return origin


def _python(name: str, config: SourceConfig, origin: Origin) -> Setting:
    given = config.python or sys.executable
    try:
        return Setting("python", local.interpreter(name, config), origin("python"))
    except SourceError as e:
        return Setting("python", given, origin("python"), bare(str(e), name))


_ELSEWHERE = {"type", "host", "port", "user", "ssh_key", "host_key_policy", "python", "env"}
"""told otherwise; values of `env` may be secrets"""


def as_given(config: SourceConfig, origin: Origin) -> Iterator[Setting]:
    """What the configuration says, and nobody can check here."""
    for field in fields(config):
        value = getattr(config, field.name)
        of_clusters = field.name in SETTINGS_OF_CLUSTERS and config.type != "hpc"
        if field.name not in _ELSEWHERE and value not in (None, [], {}) and not of_clusters:
            yield Setting(field.name, _shown(value), origin(field.name))
    for name in config.env.get("pass") or ():
        lack = "" if name in os.environ else f"{name} is not set here, so tasks won't have it: export {name}=..."
        yield Setting("env.pass", str(name), origin("env"), lack)
    if config.env.get("set"):
        yield Setting("env.set", ", ".join(config.env["set"]), origin("env"))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "; ".join(f"{key}: {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)
