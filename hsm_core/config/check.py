"""Checking configuration data against the schema of `hsm_core.config`, and building the records.

Keys and types come from the dataclasses, so a new field or section there needs nothing here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.config.file import Key
from hsm_core.config.rules import bad_source_name, problems_of
from hsm_core.config.types import alternatives, fits, mismatch, shown
from hsm_core.suggest import did_you_mean

Report = Callable[[Key, str], None]
"""Takes a problem: where in the data, and what."""


def check(data: Any, report: Report) -> dict[str, Any]:
    """A copy of one layer of configuration, ready to be merged with others: without what is None,
    unknown or no mapping where one is needed. Every problem goes to `report`; other faulty values stay.
    """
    return _section(HsmConfig, {} if data is None else data, (), report)


def build(data: Mapping[str, Any]) -> HsmConfig:
    """The configuration from data without problems; what is absent has its default."""
    config = _build(HsmConfig, data)
    assert isinstance(config, HsmConfig)
    return config


def _build(schema: Any, data: Mapping[str, Any]) -> Any:
    fields = {}
    for key, value in data.items():
        hint = _hints(schema)[key]
        inner = _values_of(hint)
        section = _section_of(hint)
        if section is not None and isinstance(value, Mapping):
            value = _build(section, value)
        elif dataclasses.is_dataclass(inner):
            value = {name: _build(inner, item) for name, item in value.items()}
        elif float in alternatives(hint):
            value = float(value)
        fields[key] = value
    return schema(**fields)


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _section_of(hint: Any) -> Any:
    """The dataclass among the alternatives of a type; None where there is none."""
    return next((one for one in alternatives(hint) if dataclasses.is_dataclass(one)), None)


def _values_of(hint: Any) -> Any:
    """What a mapping holds; None for any other type."""
    return get_args(hint)[1] if get_origin(hint) is Mapping else None


def _section(schema: type, data: Any, at: Key, report: Report) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        report(at, f"must be a mapping of keys to values, not {shown(data)}")
        return {}
    hints = _hints(schema)
    out: dict[str, Any] = {}
    for key, value in data.items():
        here = (*at, str(key))
        if key not in hints:
            report(here, f"unknown key{_home_of(key, value, schema) or did_you_mean(str(key), hints)}")
        elif value is not None:
            out[key] = _value(value, hints[key], here, report)
            if fits(out[key], hints[key]):
                for below, problem in problems_of(schema, key, out[key]):
                    report((*here, *below), problem)
            if out[key] == {} and hints[key] is not _section_of(hints[key]):
                del out[key]  # nothing in it is set; a number in the other layer counts
    return out


def _value(value: Any, hint: Any, at: Key, report: Report) -> Any:
    section = _section_of(hint)
    if section is not None and (isinstance(value, Mapping) or section is hint):
        return _section(section, value, at, report)
    inner = _values_of(hint)
    if inner is not None:
        if not isinstance(value, Mapping):
            # Not shown: under `env` it may be a secret.
            report(at, "must be a mapping of keys to values")
            return {}
        return _sources(value, at, report) if inner is SourceConfig else dict(value)
    if isinstance(value, list) and get_origin(hint) is list:
        item_type = get_args(hint)[0]
        for i, item in enumerate(value):
            if not fits(item, item_type):
                report((*at, i), mismatch(item, item_type))
    elif not fits(value, hint):
        report(at, mismatch(value, hint) + _joined(value, at))
    return value


def _joined(value: Any, at: Key) -> str:
    """How to write the fields that take several names in one text."""
    if isinstance(value, list) and at in (("sources",), ("tasks",)):
        return f'; write "{",".join(str(item) for item in value)}"'
    return ""


def _sources(data: Mapping[Any, Any], at: Key, report: Report) -> dict[str, Any]:
    out = {}
    for name, source in data.items():
        here = (*at, str(name))
        problem = bad_source_name(name)
        if problem is not None:
            report(here, problem)
        out[str(name)] = _section(SourceConfig, {} if source is None else source, here, report)
    return out


def _home_of(key: Any, value: Any, schema: type) -> str:
    """Where a key belongs that is right elsewhere; empty when it is known nowhere."""
    homes: dict[str, Any] = {"compute_sources.<name>": SourceConfig, "the top level": HsmConfig}
    homes |= {name: hint for name, hint in _hints(HsmConfig).items() if dataclasses.is_dataclass(hint)}
    known_in = [home for home, other in homes.items() if other is not schema and key in _hints(other)]
    if known_in:
        return f" here; it belongs to {' or '.join(known_in)}"
    if schema is HsmConfig and isinstance(value, Mapping) and value and set(value) <= set(_hints(SourceConfig)):
        return " here; a source belongs to compute_sources"
    return ""
