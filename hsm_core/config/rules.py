"""Which values a field of the configuration allows, beyond its type."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from hsm_core.config import (
    SOURCE_KINDS,
    ComputeConfig,
    HsmConfig,
    LoggingConfig,
    OomRetry,
    ResultCollectionConfig,
    RetryConfig,
    SourceConfig,
)
from hsm_core.config.file import Key
from hsm_core.config.sizes import limit_in_bytes, mebibytes
from hsm_core.config.types import advice, fits, shown
from hsm_core.config.walltime import wall_seconds
from hsm_core.suggest import did_you_mean

GROUP = "distributed"
"""The type of a source that only names others."""
PRIORITIES = {"high": 100, "medium": 50, "low": 0}
"""The number each word for a priority stands for."""
RESERVED_NAMES = ("all", *PRIORITIES)
"""Words of `--sources`, which can't name a source."""

Places = list[tuple[Key, str]]
Rule = Callable[[Any], str | Places | None]
"""What is wrong with a value of the right type; with places where it stands deeper in the value."""


def problems_of(schema: type, field: str, value: Any) -> Places:
    """What is wrong with a value that has the right type, with the place below the field."""
    rule = RULES.get((schema, field))
    found = rule(value) if rule is not None else None
    if found is None:
        return []
    return [((), found)] if isinstance(found, str) else found


def bad_source_name(name: Any) -> str | None:
    """What is wrong with the name of a source. It names files and stands in `--sources`."""
    if not isinstance(name, str):
        return f"the name of a source must be text, not {shown(name)}; put it in quotes"
    if name in RESERVED_NAMES:
        return f"'{name}' has a meaning of its own in --sources; choose another name"
    if re.fullmatch(r"(?!\d+\Z)\w[\w.-]{0,63}", name) is None or len(os.fsencode(name)) > 128:
        return "is no name for a source: letters, digits, '_', '-' and '.', not only digits, at most 64"
    return None


def source_types() -> list[str]:
    """The types a source can have: our own, groups, and those of installed packages."""
    from importlib.metadata import entry_points  # takes long to import

    others = {e.name for e in entry_points(group="hsm.sources")} - {*SOURCE_KINDS, GROUP}
    return [*SOURCE_KINDS, GROUP, *sorted(others)]


def _source_type(value: str) -> str | None:
    # Looking through the installed packages takes long; most configurations don't need it.
    if value in (*SOURCE_KINDS, GROUP):
        return None
    known = source_types()
    if value in known:
        return None
    return f"{shown(value)} is no type of source{did_you_mean(value, known)} (there are {', '.join(known)})"


def _at_least(least: int) -> Rule:
    return lambda value: None if value >= least else f"must be {least} or more, not {value}"


def _above_zero(value: float) -> str | None:
    return None if value > 0 else f"must be more than 0, not {value}"


def _between(low: int, high: int) -> Rule:
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}, not {value}"


def _one_of(*allowed: str) -> Rule:
    def rule(value: str) -> str | None:
        if value in allowed:
            return None
        return f"must be one of {', '.join(allowed)}, not {shown(value)}{did_you_mean(value, allowed)}"

    return rule


def _not_empty(value: str) -> str | None:
    return None if value.strip() else "must not be empty"


def _dependency(value: str) -> str | None:
    # It becomes a line of a job script. Slurm: sbatch(1), --dependency; PBS: qsub(1B), -W depend.
    if re.fullmatch(r"[a-z]+(:[\w.\[\]+-]+)*([,?][a-z]+(:[\w.\[\]+-]+)*)*", value, re.ASCII):
        return None
    return f"must be a dependency in the scheduler's words, as afterok:12345 or singleton, not {shown(value)}"


def _fail_fast(value: float) -> str | None:
    return _above_zero(value) or _whole_or_fraction(value)


def _gpus_per_task(value: float) -> str | None:
    return f"must be 0 or more, not {value}" if value < 0 else _whole_or_fraction(value)


def _whole_or_fraction(value: float) -> str | None:
    if value < 1 or float(value).is_integer():
        return None
    return f"must be a whole number or a fraction below 1, not {value}"


def _size(value: str | int) -> str | None:
    try:
        mebibytes(value)
    except ValueError as e:
        return str(e)
    return None


def _max_output(value: str | int) -> str | None:
    try:
        limit = limit_in_bytes(value)
    except ValueError as e:
        return str(e)
    if limit is not None and limit < 1024:
        return f"must be 1KB or more, or 0 for no limit, not {shown(value)}"
    return None


def _growth(value: str) -> str | None:
    try:
        growth_factor(value)
    except ValueError as e:
        return str(e)
    return None


def growth_factor(text: str) -> float:
    """The number behind `x2` or `x1.5`. Raises ValueError for anything else, and for what does not grow."""
    found = re.fullmatch(r"x([0-9]+(?:\.[0-9]+)?)", text.strip())
    if found is None or float(found[1]) <= 1:
        raise ValueError(f"must be a factor above 1 such as x2, not {shown(text)}")
    return float(found[1])


def _host(value: str) -> str | None:
    # Strict, because it ends up on command lines of ssh and rsync.
    user, at, name = value.rpartition("@")
    if re.fullmatch(r"[\w\[:][\w.:%+\[\]-]*", name) is None:
        return f"{shown(value)} is no host name, address or ssh alias"
    if at:
        return _user(user)
    hint = "; write host and port as two keys" if re.fullmatch(r"[^:]+:\d+", name) else ""
    return f"{shown(value)} is no host name, address or ssh alias{hint}" if hint else None


def _user(value: str) -> str | None:
    return None if re.fullmatch(r"[\w.][\w.@\\+$-]*", value) else f"{shown(value)} is no name of a user"


def _priority(value: str | int) -> str | None:
    if isinstance(value, int) or value in PRIORITIES:
        return None
    hint = advice(value, int) or did_you_mean(value, PRIORITIES)
    return f"must be {', '.join(PRIORITIES)} or a whole number, not {shown(value)}{hint}"


def _gpus(value: str | int | list[Any]) -> str | Places | None:
    if isinstance(value, list):
        found = [((i,), _no_gpu(gpu)) for i, gpu in enumerate(value)]
        return [(at, problem) for at, problem in found if problem is not None]
    if value == "auto" or (isinstance(value, int) and value >= 0):
        return None
    hint = f"; write [{value}]" if _no_gpu(value) is None else advice(value, int) or _like_auto(value)
    return f"must be auto, a number of GPUs, or a list of indices or UUIDs, not {shown(value)}{hint}"


def _like_auto(value: Any) -> str:
    return did_you_mean(value, ("auto",)) if isinstance(value, str) else ""


def _no_gpu(value: Any) -> str | None:
    """What is wrong with one entry of a list of GPUs."""
    if isinstance(value, str):
        known = re.fullmatch(r"(GPU|MIG)-[\w./-]+", value) is not None
    else:
        known = fits(value, int) and value >= 0
    return None if known else f"{shown(value)} is no index or UUID of a GPU{advice(value, int)}"


def _env(value: Mapping[str, Any]) -> Places:
    # No value of `set` is ever shown: it may be a secret.
    found: Places = []
    for key, content in value.items():
        if key == "pass":
            if isinstance(content, list):
                found += [((key, i), _NO_VARIABLE) for i, name in enumerate(content) if not _variable(name)]
            else:
                found.append(((key,), "must be a list of names of variables"))
        elif key == "set":
            if isinstance(content, Mapping):
                found += [((key, str(name)), _NO_VARIABLE) for name in content if not _variable(name)]
                found += [((key, str(name)), _NO_TEXT) for name, v in content.items() if not fits(v, str | int)]
            else:
                found.append(((key,), "must be a mapping of variables to their values"))
        else:
            found.append(((str(key),), f"unknown key{did_you_mean(str(key), ('pass', 'set'))}; there are pass and set"))
    return found


_NO_VARIABLE = "is no name of an environment variable"
_NO_TEXT = "must be text or a whole number; put it in quotes"


def _variable(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def _resources(value: str | Mapping[str, Any]) -> Places:
    from hsm_core.sources.hpc.resources import read  # most configurations have no cluster

    found = read(value)[1]
    return [((key,) if key and isinstance(value, Mapping) else (), text) for key, text in found]


def _walltime(value: str) -> str | None:
    try:
        wall_seconds(value)
    except ValueError as e:
        return str(e)
    return None


def _extra(value: Mapping[str, Any]) -> Places:
    from hsm_core.sources.hpc.extra import extra_problems

    return [((key,), text) for key, text in extra_problems(value)]


def _scheduler_word(value: str) -> str | None:
    # It becomes a word of a job script.
    return None if re.fullmatch(r"[!-~]+", value) else f"must be a word without spaces, not {shown(value)}"


RULES: dict[tuple[type, str], Rule] = {
    (SourceConfig, "type"): _source_type,
    (SourceConfig, "max_parallel_tasks"): _at_least(1),
    (SourceConfig, "host"): _host,
    (SourceConfig, "port"): _between(1, 65535),
    (SourceConfig, "user"): _user,
    (SourceConfig, "host_key_policy"): _one_of("verify", "accept_new"),
    (SourceConfig, "system"): _one_of("slurm", "pbs"),
    (SourceConfig, "mode"): _one_of("jobs", "pilot"),
    (SourceConfig, "pilots"): _at_least(1),
    (SourceConfig, "default_resources"): _resources,
    (SourceConfig, "resources"): _resources,
    (SourceConfig, "default_walltime"): _walltime,
    (SourceConfig, "queue"): _scheduler_word,
    (SourceConfig, "account"): _scheduler_word,
    (SourceConfig, "qos"): _scheduler_word,
    (SourceConfig, "extra"): _extra,
    (SourceConfig, "signal_delay"): _between(0, 65535),
    (SourceConfig, "weight"): _above_zero,
    (SourceConfig, "priority"): _priority,
    (SourceConfig, "gpus"): _gpus,
    (SourceConfig, "env"): _env,
    (SourceConfig, "worker"): _one_of("fork", "spawn"),
    (SourceConfig, "isolation"): _one_of("process", "reuse"),
    (ComputeConfig, "health_check_interval"): _above_zero,
    (ComputeConfig, "result_collection_interval"): _above_zero,
    (ComputeConfig, "source_failure_threshold"): _between(0, 1),
    (ComputeConfig, "health_check_failure_threshold"): _at_least(1),
    (ComputeConfig, "retry_attempts"): _at_least(0),
    (ComputeConfig, "retry_delay"): _at_least(0),
    (ComputeConfig, "orphan_timeout"): _above_zero,
    (ComputeConfig, "unreachable_timeout"): _above_zero,
    (RetryConfig, "error"): _at_least(0),
    (RetryConfig, "timeout"): _at_least(0),
    (RetryConfig, "oom"): lambda value: None if isinstance(value, Mapping) else _at_least(0)(value),
    (RetryConfig, "lost"): _at_least(1),
    (OomRetry, "times"): _at_least(0),
    (OomRetry, "mem"): _growth,
    (OomRetry, "max"): _size,
    (ResultCollectionConfig, "batch_size"): _at_least(1),
    (ResultCollectionConfig, "parallel_transfers"): _at_least(1),
    (LoggingConfig, "level"): _one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    (LoggingConfig, "max_output"): _max_output,
    (HsmConfig, "sources"): _not_empty,
    (HsmConfig, "strategy"): _not_empty,
    (HsmConfig, "dependency"): _dependency,
    (HsmConfig, "worker"): _one_of("fork", "spawn"),
    (HsmConfig, "isolation"): _one_of("process", "reuse"),
    (HsmConfig, "timeout"): _above_zero,
    (HsmConfig, "grace"): _at_least(0),
    (HsmConfig, "fail_fast"): _fail_fast,
    (HsmConfig, "on_existing"): _one_of("refuse", "resume", "overwrite"),
    (HsmConfig, "on_interrupt"): _one_of("cancel", "detach"),
    (HsmConfig, "threads_per_task"): _at_least(1),
    (HsmConfig, "gpus_per_task"): _gpus_per_task,
    (HsmConfig, "memory_per_task"): _size,
}
