"""Configurations and resolvers of the launcher's process, for machines that don't have its plugins.

A task's configuration is composed with the whole defaults list, `hydra/launcher: hsm` and
`hydra/sweeper: optuna` among it, whether the machine has any use for them or not.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hsm_core.remote.names import RESOLVER, task_name

Stored = dict[str, list[tuple[tuple[str, ...], bytes]]]
"""what is in the launcher's process, by its place, each pickled by itself"""
Found = Mapping[tuple[str, str], Any]
"""group and name of each, with its content as a plain container"""


def find(loader: Any, config: Any) -> Found:
    """Those of Hydra's own groups that the sweep's configuration has chosen from, as they are before any override."""
    from omegaconf import OmegaConf, SCMode

    found = {}
    choices: Any = OmegaConf.to_container(config.hydra.runtime.choices)
    for group, choice in choices.items():
        # "default" is what Hydra itself brings in every group of its own.
        if group.startswith("hydra/") and isinstance(choice, str) and choice != "default":
            loaded = loader.repository.load_config(f"{group}/{choice}")
            if loaded is not None:
                found[group, choice] = OmegaConf.to_container(
                    loaded.config, resolve=False, enum_to_str=True, structured_config_mode=SCMode.DICT
                )
    return found


def add(loader: Any, found: Found) -> None:
    """Have those that are not there, and the resolver of hsm's own plugin."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, lambda number: task_name(int(number)))
    store = ConfigStore.instance()
    for (group, name), content in found.items():
        if not loader.repository.config_exists(f"{group}/{name}"):
            store.store(group=group, name=name, node=content, provider="hsm")


def stored(dumps: Callable[[Any], bytes]) -> Stored:
    """What was put into Hydra's ConfigStore and among OmegaConf's resolvers; not what can't be pickled."""
    from hydra.core.config_store import ConfigStore
    from omegaconf.basecontainer import BaseContainer

    resolvers = (((name,), function) for name, function in BaseContainer._resolvers.items())
    parts = {"configs": _leaves(ConfigStore.instance().repo, ()), "resolvers": resolvers}
    found: Stored = {}
    for part, entries in parts.items():
        found[part] = []
        for place, entry in entries:
            with contextlib.suppress(Exception):  # foreign objects may raise anything when pickled
                found[part].append((place, dumps(entry)))
    return found


def restore(found: Stored) -> None:
    """Put there what is not there, but for what needs modules that this machine does not have."""
    from hydra.core.config_store import ConfigStore
    from omegaconf.basecontainer import BaseContainer

    for part, top in (("configs", ConfigStore.instance().repo), ("resolvers", BaseContainer._resolvers)):
        for place, data in found[part]:
            folder: Any = top
            for name in place[:-1]:
                folder = folder.setdefault(name, {})
            if place[-1] not in folder:
                with contextlib.suppress(ImportError, AttributeError):
                    folder[place[-1]] = pickle.loads(data)  # noqa: S301 - written by our own launcher, mode 0600


def _leaves(folder: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, entry in folder.items():
        if isinstance(entry, dict):
            yield from _leaves(entry, (*place, name))
        else:
            yield (*place, name), entry
