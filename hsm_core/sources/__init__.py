"""Places that run tasks; `base` is the interface, every other module here is one type."""

from __future__ import annotations

import importlib

from hsm_core.exceptions import SelectionError
from hsm_core.selection import Selected
from hsm_core.sources.base import Source

_OURS = {
    "local": ("hsm_core.sources.local", "LocalSource"),
    "ssh": ("hsm_core.sources.ssh.source", "SshSource"),
    "hpc": ("hsm_core.sources.hpc.source", "HpcSource"),
}
"""our own types: module and class of each"""
_PILOTS = ("hsm_core.sources.hpc.pilots", "PilotSource")
"""those of an hpc source in mode pilot"""


def load_source(selected: Selected, gpus_per_task: float | None) -> Source:
    """The source that a selection names, not started yet.

    Its class is one of ours or comes from the entry-point group `hsm.sources`. Raises SelectionError
    where no installed package brings the type.
    """
    cls = class_of(selected)
    slots = selected.limit or selected.config.max_parallel_tasks or cls.default_slots(selected.config, gpus_per_task)
    return cls(selected.name, selected.config, slots)


def class_of(selected: Selected) -> type[Source]:
    """The class of a source, as `load_source` says."""
    kind = selected.config.type
    cls: type[Source]
    if kind in _OURS:
        module, name = _PILOTS if kind == "hpc" and selected.config.mode == "pilot" else _OURS[kind]
        cls = getattr(importlib.import_module(module), name)
        return cls
    # Looking through the installed packages takes long, the first time for the import alone.
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group="hsm.sources")}
    if kind not in found:
        have = ", ".join(sorted({*found, *_OURS}))
        raise SelectionError(f"{selected.name}: sources of type {kind} are not in this version of hsm; it has: {have}")
    cls = found[kind].load()
    return cls
