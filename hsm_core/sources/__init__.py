"""Places that run tasks; `base` is the interface, every other module here is one type."""

from __future__ import annotations

from importlib.metadata import entry_points

from hsm_core.exceptions import SelectionError
from hsm_core.selection import Selected
from hsm_core.sources.base import Source


def load_source(selected: Selected, gpus_per_task: float | None) -> Source:
    """The source that a selection names, not started yet.

    Its class comes from the entry-point group `hsm.sources`. Raises SelectionError where no
    installed package brings the type.
    """
    kind = selected.config.type
    found = {entry.name: entry for entry in entry_points(group="hsm.sources")}
    if kind not in found:
        have = ", ".join(sorted(found))
        raise SelectionError(f"{selected.name}: sources of type {kind} are not in this version of hsm; it has: {have}")
    cls: type[Source] = found[kind].load()
    slots = selected.limit or selected.config.max_parallel_tasks or cls.default_slots(selected.config, gpus_per_task)
    return cls(selected.name, selected.config, slots)
