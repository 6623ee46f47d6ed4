"""Options of a scheduler that hsm has no name for: `extra: {mail-type: END, hint: nomultithread}`.

Keys are the options without dashes: for Slurm the long names (sbatch(1)), for PBS the letters (qsub(1B)):
`extra: {W: group_list=staff, l: [gpu_model=a100, filesystems=home]}`. A value is text or a number, true for an option
that takes none, or a list: PBS gets the option once for each, Slurm the values with commas between. None and false take
an option of the defaults away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hsm_core.config.types import shown
from hsm_core.text import printable

Option = bool | str | tuple[str, ...]
Extra = tuple[tuple[str, Option], ...]
"""Options and their values, sorted; so that equal ones are equal"""

_ELSEWHERE = {
    "nodes": "nodes",
    "ntasks": "ntasks",
    "ntasks-per-node": "ntasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem",
    "mem-per-cpu": "mem_per_cpu",
    "mem-per-gpu": "mem_per_gpu",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gres": "gres",
    "constraint": "constraint",
    "tmp": "tmp",
    "exclusive": "exclusive",
    "nodelist": "nodelist",
    "exclude": "exclude",
    "reservation": "reservation",
    "licenses": "licenses",
}
"""options that are resources, with their names there"""
_SETTINGS = {
    "time": "default_walltime",
    "partition": "queue",
    "account": "account",
    "qos": "qos",
    "requeue": "requeue",
    "no-requeue": "requeue",
    "q": "queue",
    "A": "account",
    "r": "requeue",
}
"""options that are settings of a source, with their names there"""
_OURS = re.compile(
    "array|batch|chdir|clusters|comment|dependency|error|export|export-file|help|input|job-name|kill-on-invalid-dep"
    "|open-mode|output|parsable|quiet|signal|test-only|uid|gid|usage|verbose|version|wait|wrap|[CGIJNRSVXefhjkovz]"
)
"""options that hsm or submitit gives itself, or without which neither learns of its job"""
_OF_SELECT = ("select", "place", "walltime", "nodes", "ncpus", "mem", "ngpus", "ppn")
"""what PBS's `-l` takes and hsm gives itself"""


def read_extra(value: Any) -> Extra:
    """The options of a mapping. Raises ValueError, in words for people, with all that is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping of options to values as in {{mail-type: END}}, not {shown(value)}")
    problems = [f"{printable(key, 60)}: {text}" for key, text in extra_problems(value)]
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(sorted((_plain(str(key)), _option(given)) for key, given in value.items()))


def extra_problems(value: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """What is wrong with options, by their keys."""
    found = [(str(key), _bad_key(str(key)) or _bad_value(str(key), given)) for key, given in value.items()]
    return [(key, text) for key, text in found if text]


def of_slurm(key: str) -> bool:
    """Whether an option is one of Slurm's, which go by long names; those of PBS are letters."""
    return len(key) > 1


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _bad_key(key: str) -> str:
    plain = _plain(key.lstrip("-"))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", plain):
        return f"{shown(key)} is no name of an option"
    if key.startswith("-"):
        return f"write it without dashes: {plain}"
    if plain in _ELSEWHERE:
        return f"belongs to default_resources, as {_ELSEWHERE[plain]}=..."
    if plain in _SETTINGS:
        return f"is a setting of its own: {_SETTINGS[plain]}"
    if _OURS.fullmatch(plain):
        return "is given by hsm itself"
    return ""


def _bad_value(key: str, value: Any) -> str:
    given = value if isinstance(value, list) else [value]
    for one in given:
        if isinstance(value, list) and (one is None or isinstance(one, bool)):
            return f"must be text or numbers, not {shown(one)}"
        if one is not None and not isinstance(one, (bool, int, float, str)):
            return f"must be text, a number, true, false or a list of texts, not {shown(one)}"
        # It becomes part of a line of a job script, and what follows a line end there is run.
        if isinstance(one, str) and (not one.isprintable() or not one.strip()):
            return f"must be one line of text, not {shown(one)}"
        name = re.match(r"\w*", str(one))
        if key == "l" and name is not None and name[0] in _OF_SELECT:
            return f"'{name[0]}' is given by hsm itself; write it in default_resources or default_walltime"
        if key == "W" and str(one).partition("=")[0].strip() in ("depend", "block"):
            return f"'{one}' is given by hsm itself"
    return "" if given else "must not be an empty list"


def _option(value: Any) -> Option:
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    return bool(value) if value is None or isinstance(value, bool) else str(value)
