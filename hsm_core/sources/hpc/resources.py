"""What a task asks a scheduler for: `nodes=1:ntasks=4:mem=32GB`, read and merged.

Names are Slurm's (sbatch(1)), with `-` or `_`. `mem`, `gpus` and `tmp` are those of each node, as with Slurm's --mem,
--gpus-per-node and --tmp and in a chunk of PBS. An attempt is one process; `ntasks` and `ntasks_per_node` are room for
what it starts itself (srun, mpirun).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from hsm_core.config import SourceConfig
from hsm_core.config.sizes import mebibytes
from hsm_core.config.types import shown
from hsm_core.config.walltime import wall_seconds
from hsm_core.sources.hpc.extra import Extra, read_extra
from hsm_core.suggest import did_you_mean
from hsm_core.text import printable


@dataclass(frozen=True)
class Resources:
    """What a job asks for; None: nothing is said about it. Jobs of equal resources can be one array."""

    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: int | None = None
    """MiB of each node"""
    mem_per_cpu: int | None = None
    """MiB"""
    mem_per_gpu: int | None = None
    """MiB"""
    gpus: int | None = None
    """of each node; 0 for none, where the defaults have some"""
    gpu_type: str | None = None
    gres: str | None = None
    constraint: str | None = None
    tmp: int | None = None
    """MiB of scratch disk of each node"""
    exclusive: bool | str | None = None
    """True: nobody else's jobs on the node; Slurm knows `user` and `mcs` too"""
    nodelist: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    licenses: str | None = None
    walltime: int | None = None
    """seconds"""
    queue: str | None = None
    """Slurm: the partition"""
    account: str | None = None
    qos: str | None = None
    extra: Extra = ()
    """options of the scheduler by their own names, as `hsm_core.sources.hpc.extra` says"""

    @property
    def tasks_per_node(self) -> int:
        """How many processes a node has room for."""
        if self.ntasks_per_node is not None:
            return self.ntasks_per_node
        return math.ceil((self.ntasks or 1) / (self.nodes or 1))

    @property
    def cpus(self) -> int:
        """Cores of each node."""
        return self.tasks_per_node * (self.cpus_per_task or 1)

    @property
    def gpu_count(self) -> int:
        """GPUs of each node, whether asked for as `gpus` or as `gres=gpu:2`."""
        if self.gpus is not None:
            return self.gpus
        return sum(int(found[1] or 1) for found in _GPU_GRES.finditer(self.gres or ""))

    @property
    def memory(self) -> int | None:
        """MiB of each node; None: as much as the scheduler gives by itself."""
        if self.mem_per_cpu is not None:
            return self.mem_per_cpu * self.cpus
        if self.mem_per_gpu is not None:
            return self.mem_per_gpu * self.gpu_count or None
        return self.mem

    def with_memory(self, memory: float) -> Resources:
        """The same with so many MiB of each node, whatever asked for memory before."""
        return replace(self, mem=math.ceil(memory), mem_per_cpu=None, mem_per_gpu=None)


def plain(resources: Resources) -> dict[str, Any]:
    """What is said of resources, as JSON."""
    said: dict[str, Any] = msgspec.to_builtins(resources)
    return {name: value for name, value in said.items() if value is not None}


def restored(said: Mapping[str, Any]) -> Resources:
    """The resources of which `plain` said this. Raises msgspec.ValidationError."""
    return msgspec.convert(said, Resources)


Problems = list[tuple[str, str]]
"""What is wrong: the key as it was written, empty for the text as a whole; and the words."""


def read(value: str | Mapping[str, Any], beside: Resources | None = None) -> tuple[Resources, Problems]:
    """What a text `nodes=1:mem=32GB` or a mapping `{nodes: 1, mem: 32GB}` asks for, and all that is wrong with it.

    In a text a value may hold colons where it is one that has them: `gpus=a100:2`, `gres=gpu:2`, `walltime=12:00:00`,
    `licenses=matlab:1`. In a mapping, None says nothing about a key. `beside`: what is asked for anyway.
    """
    found: dict[str, Any] = {}
    written: dict[str, str] = {}
    problems: Problems = []
    for key, given in _pairs(value, problems):
        name = _field(key)
        if name not in _READERS:
            hint = did_you_mean(key, _NAMES) or f"; there are {', '.join(_READERS)}"
            problems.append((key, f"there is no resource '{printable(key, 60)}'{hint}"))
        elif name in written:
            problems.append((key, f"'{printable(key, 60)}' says again what '{written[name]}' says; keep one of them"))
        else:
            written[name] = printable(key, 60)
            try:
                found |= _gpus(given) if name == "gpus" else {name: _READERS[name](given)}
            except ValueError as e:
                problems.append((key, str(e) if isinstance(value, Mapping) else f"{key}: {e}"))
    problems += _together(found, written, beside)
    return Resources(**found), problems


def parse(value: str | Mapping[str, Any], beside: Resources | None = None) -> Resources:
    """As `read`. Raises ValueError with all that is wrong, in words for people."""
    found, problems = read(value, beside)
    if problems:
        shown_keys = [(f"{printable(key, 60)}: " if isinstance(value, Mapping) else "", text) for key, text in problems]
        raise ValueError("; ".join(f"{key}{text}" for key, text in shown_keys))
    return found


def merged(defaults: Resources, own: Resources) -> Resources:
    """The defaults with what a task says of its own in their place; `extra` option by option.

    Where a task asks for memory or GPUs in other words than the defaults do, its words count alone.
    """
    said = {f.name: getattr(own, f.name) for f in fields(Resources) if getattr(own, f.name) not in (None, ())}
    for group in _ONE_OF:
        if not said.keys().isdisjoint(group):
            said = dict.fromkeys(group) | said
    extra = dict(defaults.extra) | dict(own.extra)
    return replace(defaults, **said | {"extra": tuple(sorted(extra.items()))})


def of_source(config: SourceConfig) -> Resources:
    """What the tasks of a source ask for unless they say otherwise. Raises ValueError for what no checked one has."""
    written = config.default_resources or config.resources or {}
    own = {
        "walltime": config.default_walltime,
        "queue": config.queue,
        "account": config.account,
        "qos": config.qos,
        "extra": config.extra or None,
    }
    return merged(parse(written), parse(own))


def of_task(defaults: Resources, node: object) -> Resources:
    """What one task asks for: the defaults and what its composed configuration has below `hsm`.

    `node` is that as plain data: `resources`, as text or mapping, and `walltime`, which counts before one in the
    former. An app may use the name `hsm` for something else: what is not a mapping is ignored, and so are other keys.

    Raises ValueError, in words for people, for what is wrong with the two and for a key that was meant to be one.
    """
    if not isinstance(node, Mapping):
        return defaults
    for key in node:
        meant = did_you_mean(str(key), _OF_TASKS)
        if key not in _OF_TASKS and meant:
            raise ValueError(f"hsm.{printable(str(key), 60)} is nothing that hsm knows{meant}")
    own = Resources()
    resources, walltime = node.get("resources"), node.get("walltime")
    try:
        if isinstance(resources, (str, Mapping)):
            own = parse(resources, defaults)
        elif resources is not None:
            raise ValueError(f"must be text or a mapping, not {shown(resources)}")
    except ValueError as e:
        raise ValueError(f"hsm.resources: {e}") from None
    if walltime is not None:
        try:
            own = replace(own, walltime=wall_seconds(walltime))
        except ValueError as e:
            raise ValueError(f"hsm.walltime: {e}") from None
    return merged(defaults, own)


_GPU_GRES = re.compile(r"(?:^|,)(?:gres[/:])?gpu(?::[A-Za-z][\w.-]*)?(?::([0-9]{1,9}))?(?=,|$)")
_OF_TASKS = ("resources", "walltime")
_ONE_OF = (("mem", "mem_per_cpu", "mem_per_gpu"), ("gpus", "gpu_type", "gres"), ("ntasks", "ntasks_per_node"))
"""ways of saying one thing, of which a task's own counts alone"""


def _pairs(value: str | Mapping[str, Any], problems: Problems) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), given) for key, given in value.items() if given is not None)
        return
    items: list[list[str]] = []
    for part in (part.strip() for part in value.split(":")):
        key, has_value, given = (word.strip() for word in part.partition("="))
        if not has_value and items and _field(items[-1][0]) in _WITH_COLONS:
            items[-1][1] += f":{part}"
        elif not has_value and key not in _FLAGS:
            what = f"'{printable(part, 60)}' has no value" if part else "there is nothing between two colons"
            problems.append(("", f"{what}; write for example nodes=1:ntasks=4:mem=32GB"))
        else:
            items.append([key, given if has_value else "true"])
    yield from ((key, given) for key, given in items)


def _field(key: str) -> str:
    plain = key.replace("-", "_")
    return _OTHER_NAMES.get(plain, plain)


def _count(least: int) -> Callable[[Any], int]:
    def read_count(value: Any) -> int:
        digits = isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip())
        number = int(value) if digits else value
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"must be a whole number, {least} or more, not {shown(value)}")
        return number

    return read_count


def _size(value: Any) -> int:
    return math.ceil(mebibytes(value))


def _gpus(value: Any) -> dict[str, Any]:
    """`2`, `a100:2` and `a100`, as number and type."""
    kind, _, number = str(value).rpartition(":") if not str(value).strip().isdecimal() else ("", "", value)
    if kind and not str(number).isdecimal():
        raise ValueError(f"must be a number, or a type and a number as in a100:2, not {shown(value)}")
    if not kind and isinstance(number, str) and re.fullmatch(r"[A-Za-z][\w.-]*", number):
        kind, number = number, "1"
    return {"gpus": _count(0)(number)} | ({"gpu_type": _word(kind)} if kind else {})


def _word(value: Any) -> str:
    # It becomes a word of a job script, so there is nothing in it that ends a line.
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not re.fullmatch(r"[!-~]+", str(value)):
        raise ValueError(f"must be a word without spaces, not {shown(value)}")
    return str(value)


def _hosts(value: Any) -> str:
    return ",".join(_word(host) for host in value) if isinstance(value, list) else _word(value)


def _exclusive(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    plain = str(value).lower()
    if plain not in ("true", "false", "user", "mcs"):
        raise ValueError(f"must be true, false, user or mcs, not {shown(value)}")
    return plain == "true" if plain in ("true", "false") else plain


def _together(found: Mapping[str, Any], written: Mapping[str, str], beside: Resources | None) -> Problems:
    """What is wrong with values that are right each for itself."""
    memory = [name for name in _ONE_OF[0] if name in found]
    problems: Problems = []
    if len(memory) > 1:
        one, other = (written[name] for name in memory[:2])
        problems.append((other, f"'{one}' and '{other}' ask for memory both; keep one of them"))
    if found.get("gpus") and _GPU_GRES.search(found.get("gres", "")):
        problems.append((written["gres"], "'gres' asks for GPUs too; keep 'gpus' or 'gres'"))
    gpus = [found[name] for name in ("gpus", "gres") if name in found]
    if not gpus and beside is not None:
        gpus = [beside.gpu_count]
    if "mem_per_gpu" in found and not any(gpus):
        problems.append((written["mem_per_gpu"], "'mem_per_gpu' needs gpus"))
    return problems


_READERS: dict[str, Callable[[Any], Any]] = {
    "nodes": _count(1),
    "ntasks": _count(1),
    "ntasks_per_node": _count(1),
    "cpus_per_task": _count(1),
    "mem": _size,
    "mem_per_cpu": _size,
    "mem_per_gpu": _size,
    "gpus": _gpus,
    "gpu_type": _word,
    "gres": _word,
    "constraint": _word,
    "tmp": _size,
    "exclusive": _exclusive,
    "nodelist": _hosts,
    "exclude": _hosts,
    "reservation": _word,
    "licenses": _word,
    "walltime": wall_seconds,
    "queue": _word,
    "account": _word,
    "qos": _word,
    "extra": read_extra,
}
_OTHER_NAMES = {
    "tasks": "ntasks",
    "tasks_per_node": "ntasks_per_node",
    "cpus": "cpus_per_task",
    "ncpus": "cpus_per_task",
    "ppn": "cpus_per_task",
    "memory": "mem",
    "ngpus": "gpus",
    "gpus_per_node": "gpus",
    "time": "walltime",
    "partition": "queue",
}
_NAMES = (*_READERS, *_OTHER_NAMES)
_WITH_COLONS = ("gpus", "gres", "licenses", "walltime")
_FLAGS = ("exclusive",)
