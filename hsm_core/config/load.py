"""From the `hydra.launcher` node and hsm_config.yaml to one checked configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsm_core.config import HsmConfig
from hsm_core.config.check import build, check
from hsm_core.config.file import Key, locate, read
from hsm_core.config.sources import across_keys
from hsm_core.exceptions import ConfigError
from hsm_core.ownership import foreign_file
from hsm_core.text import printable

_OF_HYDRA = ("_target_", "_recursive_", "_convert_")


def load(node: Mapping[str, Any] | None, *, cwd: Path, app_dir: Path | None = None) -> HsmConfig:
    """The configuration that holds for a sweep.

    `node` is the resolved `hydra.launcher` node as plain data; what is None there is not set. It
    wins over the file, the file over the defaults; mappings are merged key by key, a list replaces
    the other. The file is `config_file` of the node (relative to `cwd`), else the first that
    `hsm_core.config.file.locate` finds.

    Raises ConfigError with every problem of both. Afterwards every value is one the schema allows;
    there is at least one source (if none is configured: `local`); a source of type ssh has a host
    (if none is given: its name, which may be an alias of ssh); values of `env.set` are text; the
    members of groups exist; and `config_file` is the file that was read, or None.
    """
    problems: list[str] = []
    own = {key: value for key, value in (node or {}).items() if key not in _OF_HYDRA}
    if own.get("sweep_file") is not None:
        own, gone = _without_what_is_gone(own)
        where = f"{own['sweep_file']}: hsm"
        problems += [f"{where}.{_dotted(at)}: is gone since the sweep began; put it back" for at in gone]
    layers = [_checked(own, lambda at: _dotted(("hydra", "launcher", *at)), problems)]
    named = layers[0].data.pop("config_file", None)
    path = cwd / os.path.expanduser(named) if isinstance(named, str) else locate(cwd, app_dir)
    if path is not None:
        layers.append(_from_file(path, cwd, problems, named=isinstance(named, str), app_dir=app_dir))
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer.data)
    sources = merged.setdefault("compute_sources", {})
    if not sources:
        sources["local"] = {"type": "local"}
    if all(layer.complete for layer in layers):
        problems += [f"{_place(layers, at)}: {text}" for at, text in across_keys(sources)]
    if problems:
        raise ConfigError([printable(problem) for problem in problems])
    for name, source in sources.items():
        _complete(name, source)
    return build(merged | {"config_file": None if path is None else str(path)})


def _without_what_is_gone(node: Mapping[str, Any]) -> tuple[dict[str, Any], list[Key]]:
    """The node without values of `env.set` that the sweep file does not hold any more, and where they stood."""
    sources: dict[str, Any] = {}
    gone: list[Key] = []
    for name, source in node["compute_sources"].items():
        env = (source or {}).get("env") or {}
        values = env.get("set") or {}
        gone += [("compute_sources", name, "env", "set", variable) for variable in values if values[variable] is None]
        left = {variable: value for variable, value in values.items() if value is not None}
        sources[name] = source if left == values else {**source, "env": {**env, "set": left}}
    return {**node, "compute_sources": sources}, gone


@dataclass(frozen=True)
class _Layer:
    """One of the places configuration comes from."""

    data: dict[str, Any]
    place: Callable[[Key], str]
    """where a key of this layer stands, for people"""
    complete: bool = True
    """False: the file could not be read, so what seems to be missing may be in there"""


def _checked(data: Any, place: Callable[[Key], str], problems: list[str]) -> _Layer:
    return _Layer(check(data, lambda at, text: problems.append(f"{place(at)}: {text}")), place)


def _from_file(path: Path, cwd: Path, problems: list[str], *, named: bool, app_dir: Path | None) -> _Layer:
    """The layer of a file, which was named, or else found and is looked at first."""
    name = str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)
    try:
        why = None if named else foreign_file(path, app_dir)
        if why is not None:
            problems.append(f"{name}: {why}; to use it all the same: hydra.launcher.config_file={name}")
            return _Layer({}, lambda at: name, complete=False)
        document = read(path)
    except OSError as e:
        problems.append(f"{name}: can't be read as the configuration file: {e.strerror}")
        return _Layer({}, lambda at: name, complete=False)

    def place(at: Key) -> str:
        line = next((document.lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in document.lines), 1)
        return _joined(f"{name}:{line}", at)

    for at, line, text in document.problems:
        problems.append(f"{_joined(f'{name}:{line}', at)}: {text}")
    if document.data is None:
        return _Layer({}, place, complete=not document.problems)
    layer = _checked(document.data, place, problems)
    if layer.data.pop("config_file", None) is not None:
        problems.append(f"{place(('config_file',))}: can't be set in the file itself")
    return layer


def _joined(place: str, at: Key) -> str:
    return f"{place}: {_dotted(at)}" if at else place


def _dotted(at: Key) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merge(out[key], value) if both else value
    return out


def _place(layers: list[_Layer], at: Key) -> str:
    """Where a key stands that counts: in the first layer that has it, else where its parent does."""
    for layer in layers:
        found: Any = layer.data
        for part in at:
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return layer.place(at)
    return _place(layers, at[:-1])


def _complete(name: str, source: dict[str, Any]) -> None:
    if source["type"] == "ssh":
        source.setdefault("host", name)
    if "set" in source.get("env", {}):
        source["env"] = source["env"] | {"set": {key: str(value) for key, value in source["env"]["set"].items()}}
