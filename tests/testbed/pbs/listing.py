"""How qstat writes: a table, `-f` with lines folded or not, and JSON as cJSON prints it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.testbed.pbs.job import HOST, Job, attributes

VERSION = "23.06.06"
HEAD = """\
Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
"""


def table(jobs: Sequence[Job]) -> str:
    """Empty without jobs."""
    rows = []
    for job in jobs:
        used = "0" if job.stime is None or job.is_array else "00:00:00"
        row = f"{job.id:<20.20}{job.request.name:<16.16} {job.owner:<16.16} {used:>8} {job.letter}"
        rows.append(f"{row} {job.request.queue:<16}\n")
    return HEAD + "".join(rows) if rows else ""


def full(jobs: Sequence[Job], width: int | None) -> str:
    """`qstat -f`: lines folded at `width` characters, or not at all (`-w`)."""
    text = ""
    for job in jobs:
        text += f"Job Id: {job.id}\n"
        for name, value in _flat(attributes(job)):
            text += _folded(f"    {name} = {value}", width) + "\n"
        text += "\n"
    return text


def _flat(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for name, value in shown.items():
        if name == "Variable_List":
            flat.append((name, ",".join(f"{k}={v}" for k, v in value.items()).replace("\n", "\\n")))
        elif isinstance(value, dict):
            flat += [(f"{name}.{part}", str(of)) for part, of in value.items()]
        else:
            flat.append((name, str(value)))
    return flat


def _folded(line: str, width: int | None) -> str:
    """Fold behind commas where that fits, anywhere else where it does not; a folded line begins with a tab."""
    if width is None:
        return line
    lines: list[str] = []
    current = ""
    for part in re.findall(r"[^,]*,|[^,]+$", line):
        if len(current) + len(part) > (width if not lines else width - 11) and current.endswith(","):
            lines.append(current)
            current = ""
        current += part
        while len(current) > (room := width if not lines else width - 11):
            lines.append(current[:room])
            current = current[room:]
    return "\n\t".join([*lines, current])


def server(max_array_size: int) -> str:
    """`qstat -B -f -F json`, as far as anybody looks."""
    facts = {"server_state": "Active", "server_host": HOST, "max_array_size": max_array_size, "pbs_version": VERSION}
    told = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": HOST, "Server": {HOST: facts}}
    return json.dumps(told, indent="\t") + "\n"


def document(jobs: Sequence[Job], raw: bool) -> str:
    """`-F json`; `raw` as the release 23.06.06 has it, which leaves what looks like a number unquoted."""
    told: dict[str, Any] = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": HOST}
    if jobs:
        told["Jobs"] = {job.id: attributes(job) for job in jobs}
    text = _printed(told, 0) + "\n"
    if raw:
        number = r'"([+-]?(?:nan|inf|\d*\.?\d+(?:e\d+)?|\d+\.))"(?=,?$)'
        text = re.sub(number, r"\1", text, flags=re.MULTILINE)
    return text


def _printed(value: Any, depth: int) -> str:
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    inner, outer = "\t" * (depth + 1), "\t" * depth
    rows = [f"{inner}{json.dumps(name)}:\t{_printed(of, depth + 1)}" for name, of in value.items()]
    return "{\n" + ",\n".join(rows) + ("\n" if rows else "") + outer + "}"
