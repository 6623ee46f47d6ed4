"""What finished attempts left, if it is little, as one stream: their manifests, and the contents of the files in these.

Each line of the standard input is one JSON object: `sweep`, the sweep's directory, and `outputs`, the names of output
directories in it by attempt. For each attempt comes one JSON object on a line: its `id`, and, if it is little, the
`entries` of its manifest and `facts`, the modification time (in ns) and whether it is executable of each file; the
contents follow then, as they are and in the same order.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

from hsm_core.remote import confined, manifest, process

LIGHT = 256 << 10
"""bytes that an attempt may have left"""
FEW = 100
"""files that it may have left"""
FULL = 1 << 15
"""bytes that are sent together: each message of SSH costs its reader time, however small it is"""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def main(args: list[str]) -> None:
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        waiting = bytearray()
        for attempt, name in wanted["outputs"].items():
            waiting += _parcel(wanted["sweep"], attempt, name)
            if len(waiting) >= FULL:
                process.write_all(1, waiting)
                waiting.clear()
        process.write_all(1, waiting)


def _parcel(sweep: str, attempt: str, name: str) -> bytes:
    try:
        with open(os.path.join(sweep, ".hsm", "results", f"{attempt}.manifest"), "rb") as file:
            entries = list(manifest.entries(file))
        packed = _contents(os.path.join(sweep, name), entries)
    except (OSError, ValueError):
        packed = None  # rsync tells what is the matter
    if packed is None:
        return _line(id=attempt)
    facts, contents = packed
    return b"".join([_line(id=attempt, entries=entries, facts=facts), *contents])


def _line(**words: Any) -> bytes:
    return json.dumps(words, separators=(",", ":")).encode("ascii") + b"\n"


def _contents(folder: str, entries: Sequence[dict[str, Any]]) -> tuple[list[tuple[int, bool]], list[bytes]] | None:
    """The facts and the contents of files; None where that is much, or no file. Raises OSError and ValueError."""
    if len(entries) > FEW or any("link" in entry for entry in entries):
        return None
    if sum(entry["size"] for entry in entries) > LIGHT:
        return None
    facts, contents = [], []
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in entries:
            path = confined.parts(entry["name"])
            here = confined.open_folder(top, path[:-1])
            try:
                descriptor = os.open(path[-1], _READ, dir_fd=here)
            finally:
                os.close(here)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                content = file.read(entry["size"] + 1)
            if len(content) != entry["size"]:
                return None  # it has changed since
            facts.append((status.st_mtime_ns, bool(status.st_mode & stat.S_IXUSR)))
            contents.append(content)
    finally:
        os.close(top)
    return facts, contents
