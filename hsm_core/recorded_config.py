"""The recorded configuration of a sweep, and how today's differs from it.

Recorded are salted hashes of the app's unresolved values, key by key: differing keys can be named, and no value, which
may be a secret, is stored or shown. What is under `hydra` is not part of it. Task overrides are, but only to make
like comparable with like: a point that is asked for with other overrides is another point, not another configuration.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsm_core.exceptions import SweepChanged
from hsm_core.remote.compose import BASES, Composer
from hsm_core.state import SweepState, TaskRecord
from hsm_core.task import TaskState

FILE = "config.json"
"""in a payload's folder"""
SHOWN = 20
"""differing keys that are named"""


@dataclass(frozen=True)
class Recorded:
    """What a launcher noted of its configuration."""

    overrides: tuple[str, ...]
    """task overrides of its command line"""
    salt: str
    leaves: Mapping[str, str]
    """dotted key -> salted hash of its value"""


def record(folder: Path, config: DictConfig) -> None:
    """Note the configuration in a payload's folder, readable by its owner only. Raises OSError."""
    salt = secrets.token_hex(16)
    facts = {"overrides": _overrides(config), "salt": salt, "leaves": _salted(_leaves(_own(config)), salt)}
    with open(os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        json.dump(facts, file)


def config_hash(config: DictConfig) -> str:
    """16 hex digits over the app's own configuration as the sweep found it."""
    text = OmegaConf.to_yaml(_own(config))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def changed_keys(hsm: Path, state: SweepState, config: DictConfig, context: HydraContext) -> list[str]:
    """How today's configuration differs from the recorded one, `model.depth: changed`, sorted; empty where it does not.

    Compared is what the recorded overrides give today, and what each choice of groups gives that a completed task was
    made with. Raises SweepChanged where that can't even be composed.
    """
    try:
        recorded = _read(hsm / state.config)
        if recorded is None:
            told = f"(which keys can't be told: .hsm/{state.config}/{FILE} is gone)"
            return [] if state.config_hash in (None, config_hash(config)) else [told]
        base = config if recorded.overrides == _overrides(config) else _composed(config, context, recorded.overrides)
        changed = _differences(recorded.leaves, _salted(_leaves(_own(base)), recorded.salt))
        for choices, was, now in _samples(state, config, context):
            under = f" with {' '.join(choices)}"
            changed |= {key + under: how for key, how in _differences(was, now).items() if key not in changed}
    except (HydraException, OmegaConfBaseException) as e:
        cause = f": {e.__cause__}" if e.__cause__ is not None else ""
        raise SweepChanged(
            f"{state.id}: its configuration changed so that its tasks can't be composed any more: {e}{cause}\n"
            f"Nothing was started. {ways_on(state.id)}"
        ) from e
    return [f"{key}: {how}" for key, how in sorted(changed.items())]


def refusal(sweep_id: str, changed: list[str]) -> SweepChanged:
    """The error that names what differs, and the ways on."""
    lines = [f"  {line}" for line in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"  and {len(changed) - SHOWN} more")
    told = "\n".join([f"{sweep_id}: the configuration differs from the recorded one:", *lines])
    return SweepChanged(f"{told}\nNothing was started. {ways_on(sweep_id)}")


def ways_on(sweep_id: str) -> str:
    return (
        f"To use the new configuration for what is left: hsm complete {sweep_id} --accept-config-change. "
        "To use code and configuration of the sweep's start: --original-code. "
        "On the app's own command line: hydra.launcher.accept_config_change=true, hydra.launcher.original_code=true"
    )


def _read(folder: Path) -> Recorded | None:
    try:
        facts = json.loads((folder / FILE).read_text("ascii"))
        return Recorded(tuple(facts["overrides"]), facts["salt"], facts["leaves"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _overrides(config: DictConfig) -> tuple[str, ...]:
    return tuple(config.hydra.overrides.task)


def _own(config: Any) -> Any:
    keys: Any = [key for key in config if key != "hydra"]
    return OmegaConf.masked_copy(config, keys)


def _composed(config: DictConfig, context: HydraContext, overrides: tuple[str, ...]) -> DictConfig:
    """The sweep's configuration with other task overrides."""
    of_hydra: list[str] = list(config.hydra.overrides.hydra)
    return context.config_loader.load_configuration(
        config.hydra.job.config_name, [*of_hydra, *overrides], RunMode.MULTIRUN
    )


def _samples(
    state: SweepState, config: DictConfig, context: HydraContext
) -> Iterator[tuple[tuple[str, ...], dict[str, str], dict[str, str]]]:
    """For each choice of groups: a completed task's configuration as Hydra saved it for the task, and as it is today.

    As many choices are looked at as a composer keeps.
    """
    composer = Composer(context.config_loader, config)
    samples: dict[tuple[str, ...], TaskRecord] = {}
    for task in state.tasks.values():
        attempt = task.attempt
        if task.state is TaskState.COMPLETED and attempt is not None and attempt.epoch >= state.config_epoch:
            choices = composer.choices(task.overrides)
            if choices:
                samples.setdefault(choices, task)
    for choices, task in itertools.islice(samples.items(), BASES):
        was = _saved(task, str(config.hydra.output_subdir))
        if was is not None:
            now = OmegaConf.to_yaml(_own(composer.compose(task.overrides, task.index)))
            yield choices, _leaves(was), _leaves(OmegaConf.create(now))


def _saved(task: TaskRecord, folder: str) -> Any:
    assert task.attempt is not None
    if task.attempt.output_dir is None:
        return None
    try:
        return OmegaConf.load(Path(task.attempt.output_dir) / folder / "config.yaml")
    except (OSError, yaml.YAMLError):
        return None  # not saved (hydra.output_subdir=null), or removed since


def _leaves(config: Any) -> dict[str, str]:
    """Dotted key -> value as text; interpolations as they are written."""
    found: dict[str, str] = {}

    def walk(value: Any, at: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{at}.{key}" if at else str(key))
        elif isinstance(value, list) and value:
            for number, item in enumerate(value):
                walk(item, f"{at}[{number}]")
        else:
            found[at] = json.dumps(value, default=_text)

    walk(OmegaConf.to_container(config, resolve=False, enum_to_str=True), "")
    return found


def _text(value: Any) -> str:
    """Bytes and paths as what they are; of other objects, whose text may be an address, their type."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind}: {value!r}" if isinstance(value, (bytes, os.PathLike)) else kind


def _salted(leaves: Mapping[str, str], salt: str) -> dict[str, str]:
    return {
        key: hashlib.sha256(f"{salt}\0{key}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        for key, value in leaves.items()
    }


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Key -> added, removed or changed."""
    added = dict.fromkeys(after.keys() - before.keys(), "added")
    removed = dict.fromkeys(before.keys() - after.keys(), "removed")
    changed = (key for key in before.keys() & after.keys() if before[key] != after[key])
    return added | removed | dict.fromkeys(changed, "changed")
