"""What is wrong with sources beyond single values: settings that don't go with their type, or not with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from hsm_core.config import SOURCE_KINDS, SourceConfig
from hsm_core.config.file import Key
from hsm_core.config.rules import GROUP, source_types
from hsm_core.suggest import did_you_mean

_OF_GROUPS = ("type", "sources")
_OF_HOSTS = ("port", "user", "ssh_key", "host_key_policy", "project_dir")
SETTINGS_OF_CLUSTERS = (
    "system",
    "mode",
    "pilots",
    "default_resources",
    "default_walltime",
    "queue",
    "account",
    "qos",
    "extra",
    "requeue",
    "signal_delay",
)
"""what only sources of type hpc have"""


_DEFAULTS = {field.name: field.default for field in fields(SourceConfig) if field.default is not MISSING}
"""what says nothing, on whichever source it stands"""


def across_keys(sources: Mapping[str, Any]) -> list[tuple[Key, str]]:
    """What is wrong with the sources as they are once all layers are merged, each with its place.

    Values of a wrong type have been told of already, and are passed over.
    """
    return [
        (("compute_sources", name, *([key] if key else [])), text)
        for name, source in sources.items()
        for key, text in _of_source(source, sources)
    ]


def _of_source(source: Mapping[str, Any], sources: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = source.get("type")
    if kind is None:
        yield "", f"has no type; add one of {', '.join(source_types())}"
        return
    if kind == GROUP:
        yield from ((k, "a group has no such thing; set it for its members") for k in source if k not in _OF_GROUPS)
        yield from (("sources", text) for text in _bad_members(source.get("sources", []), sources))
        return
    if "sources" in source:
        yield "sources", f"only a source of type {GROUP} has members"
    if kind in SOURCE_KINDS:
        yield from _foreign(kind, source)
    if kind == "hpc":
        yield from _of_cluster(source)
    in_host, user = str(source.get("host", "")).rpartition("@")[0], source.get("user")
    if in_host and user is not None and user != in_host:
        yield "user", f"is '{user}', but its host says '{in_host}'; keep one of them"


def _foreign(kind: str, source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings of other types. Those of third parties may have any."""
    for key, value in source.items():
        if key in _DEFAULTS and value == _DEFAULTS[key]:
            continue
        if key in SETTINGS_OF_CLUSTERS and kind != "hpc":
            yield key, f"only a source of type hpc has it, and this one is of type {kind}"
        elif key in ("host", *_OF_HOSTS) and kind == "local":
            yield key, "a local source is this machine; one that is reached by SSH is of type ssh"
        elif key in _OF_HOSTS and kind == "hpc" and "host" not in source:
            yield key, "means nothing without host, the login node that is reached by SSH"


def _of_cluster(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from hsm_core.sources.hpc import resources, translation  # most configurations have no cluster

    if source.get("mode", "jobs") == "jobs" and "gpus" in source:
        yield "gpus", "in mode jobs the scheduler gives tasks their GPUs; write for example default_resources: gpus=1"
    if source.get("mode", "jobs") == "jobs" and source.get("pilots", 1) != 1:
        yield "pilots", "means something in mode pilot only; add mode: pilot"
    if source.get("mode") == "pilot" and "host" in source:
        yield "host", "pilots are reached by TCP from a node of the cluster: start the sweep there, or leave mode out"
    if "resources" in source and "default_resources" in source:
        yield "resources", "says the same as default_resources; keep one of them"
    where = "default_resources" if "default_resources" in source else "resources"
    written = source.get(where, {})
    if not isinstance(written, (str, Mapping)):
        return
    asked = resources.read(written)[0]  # as much of it as can be read
    for key, field in _SAID_BY.items():
        if getattr(asked, field) and key in source:
            yield key, f"{where} says '{field}' too; keep one of them"
    own = resources.read({field: source.get(key) for key, field in _SAID_BY.items()})[0]
    if source.get("system") in ("slurm", "pbs"):
        for field, text in translation.lacking(resources.merged(asked, own), source["system"]):
            key = next((key for key, name in _SAID_BY.items() if name == field and key in source), where)
            yield key, text


_SAID_BY = {"default_walltime": "walltime", "queue": "queue", "account": "account", "qos": "qos", "extra": "extra"}
"""settings of a cluster, and the resources that say the same"""


def _bad_members(members: Any, sources: Mapping[str, Any]) -> list[str]:
    if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
        return []  # reported as a wrong type already
    if not members:
        return ["a group needs members; write the names of sources, as in [local, server1]"]
    found = [f"'{m}' is here twice" for m, count in Counter(members).items() if count > 1]
    for member in members:
        if member not in sources:
            found.append(f"there is no source '{member}'{did_you_mean(member, sources)}")
    return found
