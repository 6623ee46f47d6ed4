"""The jobs of a sweep: every combination of its axes, made when somebody asks for one."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, overload

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hsm_core.exceptions import ConfigError
from hsm_core.override_text import quote

SAMPLES = 32
"""jobs whose configuration is composed before the first one starts"""

Axis = Sequence[tuple[str, ...]]
"""the choices of one axis, each a tuple of overrides that go together"""


class Jobs(Sequence[Sequence[str]]):
    """All combinations of the axes in order, the last axis running fastest; none is stored."""

    def __init__(self, axes: Sequence[Axis], limit: int | None = None) -> None:
        self._axes = axes
        self._all = math.prod(len(axis) for axis in axes)
        self._length = self._all if limit is None else min(limit, self._all)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> list[str]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[str]]: ...

    def __getitem__(self, index: int | slice) -> list[str] | list[list[str]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        rest = index + self._length if index < 0 else index
        if not 0 <= rest < self._length:
            raise IndexError(index)
        parts: list[tuple[str, ...]] = []
        for axis in reversed(self._axes):
            rest, choice = divmod(rest, len(axis))
            parts.append(axis[choice])
        return [text for part in reversed(parts) for text in part]

    def samples(self) -> list[list[str]]:
        """A few jobs which together have as many choices of every axis as `SAMPLES` allows.

        Composing these finds keys, groups and values that are not in the configuration, without
        composing every combination.
        """
        if not self._length:
            return []
        steps: list[range] = []
        stride = self._all
        for axis in self._axes:
            stride //= len(axis)
            # Job i of these has a choice of this axis that is not its first, and the first of all others.
            steps.append(range(stride, min(stride * len(axis), self._length), stride))
        # In turn, so that a long axis leaves room for the others.
        turns = (i for turn in itertools.zip_longest(*steps) for i in turn if i is not None)
        return [self[i] for i in sorted([0, *itertools.islice(turns, SAMPLES - 1)])]


def jobs_of(loader: ConfigLoader, params: Any, paired: Any, arguments: Sequence[str], limit: int | None) -> Jobs:
    """The jobs of the basic sweeper for these overrides, times those of the paired groups.

    Raises HydraException on an override that can't be enumerated, ConfigError on a bad group, on an
    axis without values, on a limit below 1, and on more jobs than can be counted.
    """
    if limit is not None and limit < 1:
        raise ConfigError([f"hydra.sweeper.max_runs: must be 1 or more, got {limit}"])
    texts = [f"{key}={value}" for key, value in (params or {}).items()]
    axes: dict[str, Axis] = {}
    for parsed in OverridesParser.create(config_loader=loader).parse_overrides([*texts, *arguments]):
        key = parsed.get_key_element()
        if not parsed.is_sweep_override():
            axes[key] = [(f"{key}={parsed.get_value_element_as_str()}",)]
        elif parsed.is_discrete_sweep():
            axes[key] = [(f"{key}={value}",) for value in parsed.sweep_string_iterator()]
        else:
            assert parsed.value_type is not None
            raise HydraException(f"HsmSweeper does not support sweep type : {parsed.value_type.name}")
    empty = [key for key, axis in axes.items() if not axis]
    if empty:
        raise ConfigError([f"the grid is empty: {key} has no values" for key in empty])
    all_axes = [*axes.values(), *_paired_axes(_groups(paired), axes)]
    count = math.prod(len(axis) for axis in all_axes)
    if limit is None and count > sys.maxsize:
        raise ConfigError(
            [f"the grid has more than 10^{int(math.log10(count))} jobs; limit it with hydra.sweeper.max_runs"]
        )
    return Jobs(all_axes, limit)


def _groups(paired: Any) -> list[Any]:
    """The groups as plain lists and dicts.

    `hsm run` sends groups that hold `${..}` as JSON text: Hydra 1.3 resolves the sweeper's node,
    1.4 does not, so no other spelling reaches us unchanged in both.
    """
    try:
        groups = json.loads(paired) if isinstance(paired, str) else paired
    except ValueError:
        groups = paired
    groups = OmegaConf.to_container(groups, resolve=False) if OmegaConf.is_config(groups) else groups or []
    if not isinstance(groups, list):
        raise ConfigError([f"hydra.sweeper.paired: expected a list of groups, got {groups!r}"])
    return groups


def _paired_axes(groups: Sequence[Any], axes: Mapping[str, Axis]) -> list[Axis]:
    problems: list[str] = []
    found: list[Axis] = []
    taken = {key.lstrip("+~") for key in axes}
    for number, group in enumerate(groups):
        place = f"hydra.sweeper.paired[{number}]"
        if not _is_group(group):
            problems.append(f"{place}: expected a mapping of keys to lists, got {group!r}")
            continue
        lengths = {key: len(values) for key, values in group.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items()) or "it is empty"
            problems.append(f"{place}: the lists must have one length, at least 1: {told}")
            continue
        for key in group:
            if key.lstrip("+~") in taken:
                problems.append(f"{place}.{key}: this key is swept twice")
            taken.add(key.lstrip("+~"))
        try:
            found.append(_rows(group))
        except ValueError as e:
            problems.append(f"{place}: {e}")
    if problems:
        raise ConfigError(problems)
    return found


def _is_group(group: Any) -> bool:
    return isinstance(group, dict) and all(isinstance(k, str) and isinstance(v, list) for k, v in group.items())


def _rows(group: Mapping[str, Sequence[Any]]) -> Axis:
    rows = zip(*group.values(), strict=True)
    return [tuple(f"{key}={quote(value)}" for key, value in zip(group, row, strict=True)) for row in rows]
