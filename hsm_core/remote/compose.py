"""Composing the configuration of one task, quickly where that is known to give the same.

Hydra composes a job from its files each time, some 35 ms. Nearly all of it depends on the choices
of groups only, so that part is composed once per set of choices, by Hydra itself; the values of a
task are then applied to it by Hydra's own code. Whatever is not plainly a value (a deletion, a
package, anything of `hydra.*`) goes Hydra's own way from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hsm_core.remote.masked import mask_environment
from hsm_core.remote.plain_override import parse_overrides

BASES = 64
"""sets of choices that are kept composed"""

_Split = tuple[tuple[str, ...], list[Any], list[Any]]
"""choices of groups as text, values, and all as parsed"""


class Composer:
    """Composes the tasks of one sweep.

    `config_loader` is Hydra's, `config` the composed configuration of the sweep itself; `learnt` is what another
    composer of the same sweep has `learnt`.
    """

    def __init__(self, config_loader: Any, config: Any, learnt: Mapping[str, Any] | None = None) -> None:
        self._loader = config_loader
        self._config = config
        self._bases: dict[tuple[str, ...], Any] = {}
        self._groups: dict[str, bool] = {}
        self._given: dict[tuple[str, ...], Any] = {}
        """bases that were not asked for yet"""
        if learnt is not None:
            self._given.update(learnt["bases"])
            self._groups.update(learnt["groups"])
        self._parsed: tuple[tuple[str, ...], _Split | None] = ((), None)
        """the overrides that were split last, and what came of it"""

    def prepare(self, overrides: Sequence[str]) -> Any | None:
        """Compose now what the task with these overrides shares with others; returns that if it is new.

        To be called before forking, so that all children find it. Never raises: what is wrong with
        these overrides is raised by `compose`, in the task's own process.
        """
        try:
            split = self._split(overrides)
            if split is None or split[0] in self._bases:
                return None
            return self._base(split[0])
        except Exception:  # resolvers and configuration sources of the app may raise anything
            return None

    def learnt(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        """What a task with these overrides needs of the other tasks' work, to be pickled. Never raises."""
        self.prepare(overrides)
        split = self._parsed[1]
        bases = {} if split is None else {groups: base for groups, base in self._bases.items() if groups == split[0]}
        return {"bases": bases, "groups": dict(self._groups)}

    def compose(self, overrides: Sequence[str], index: int, *, last: bool = False) -> Any:
        """The whole configuration of a task, as Hydra's basic launcher makes it; values of `env.set` are masked.

        With `last` the composer may give away what it keeps: a forked child composes once.
        Raises what Hydra raises.
        """
        from omegaconf import open_dict

        from hsm_core.remote.clone import clone

        split = self._split(overrides)
        if split is None:
            job = self._load(overrides)
        else:
            groups, values, parsed = split
            base = self._base(groups)
            job = self._with_values(base if last else clone(base), values, parsed)
        with open_dict(job):
            job.hydra.job.id = str(index)
            job.hydra.job.num = index
        return job

    def may_have(self, key: str, overrides: Sequence[str]) -> bool:
        """Whether the configuration of a task with these overrides can have anything below this key, one without dots.

        Nothing but what the task shares with others is composed for that. Raises what Hydra raises.
        """
        split = self._split(overrides)
        if split is None:
            return True
        groups, values, _ = split
        return key in self._base(groups) or any(value.key_or_group.split(".")[0] == key for value in values)

    def choices(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Those of the overrides that choose from the app's groups, as text."""
        keys = ((o, o.lstrip("+~").partition("=")[0].partition("@")[0]) for o in overrides)
        return tuple(o for o, key in keys if not key.startswith("hydra/") and self._is_group(key))

    def _base(self, groups: tuple[str, ...]) -> Any:
        base = self._bases.get(groups)
        if base is None:
            given = self._given.pop(groups, None)
            base = self._load(groups) if given is None else given
            if len(self._bases) >= BASES:
                del self._bases[next(iter(self._bases))]
            self._bases[groups] = base
        return base

    def _load(self, overrides: Sequence[str]) -> Any:
        job = self._loader.load_sweep_config(self._config, list(overrides))
        mask_environment(job)
        return job

    def _split(self, overrides: Sequence[str]) -> _Split | None:
        """The overrides taken apart; None where a plain split won't do."""
        wanted = tuple(overrides)
        if not wanted or self._parsed[0] != wanted:
            self._parsed = wanted, self._take_apart(wanted)
        return self._parsed[1]

    def _take_apart(self, overrides: Sequence[str]) -> _Split | None:
        from hydra.core.override_parser.types import OverrideType
        from hydra.errors import OverrideParseException

        try:
            parsed = parse_overrides(overrides)
        except OverrideParseException:
            return None
        plain = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
        groups, values = [], []
        for override in parsed:
            key = override.key_or_group
            simple = override.type in plain and override.package is None and not override.is_sweep_override()
            if not simple or key.split(".")[0].split("/")[0] == "hydra" or getattr(override, "is_value_path", False):
                return None
            if self._is_group(key):
                groups.append(str(override.input_line))
            else:
                values.append(override)
        return tuple(groups), values, parsed

    def _is_group(self, key: str) -> bool:
        """Whether Hydra takes an override of this key for the choice of a group."""
        found = self._groups.get(key)
        if found is None:
            from omegaconf import OmegaConf

            options = self._loader.get_group_options(
                key,
                results_filter=None,
                config_name=self._config.hydra.job.config_name,
                overrides=OmegaConf.to_container(self._config.hydra.overrides.hydra),
            )
            found = self._groups[key] = bool(options)
        return found

    def _with_values(self, job: Any, values: Sequence[Any], parsed: Sequence[Any]) -> Any:
        """Do what remains of `ConfigLoaderImpl._load_configuration_impl` after the defaults list."""
        from hydra._internal import config_loader_impl as impl

        impl.ConfigLoaderImpl._apply_overrides_to_config(list(values), job)
        del job.hydra.overrides.task[:]
        job.hydra.overrides.task.extend([override.input_line for override in parsed])
        if hasattr(impl, "get_overrides_dirname"):  # Hydra 1.3; 1.4 has a resolver for it
            options = job.hydra.job.config.override_dirname
            job.hydra.job.override_dirname = impl.get_overrides_dirname(
                overrides=list(parsed),
                kv_sep=options.kv_sep,
                item_sep=options.item_sep,
                exclude_keys=options.exclude_keys,
            )
        return job
