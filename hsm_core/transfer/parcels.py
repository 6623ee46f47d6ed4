"""What finished attempts left on a host, brought in one stream where it is little: most tasks leave a few small files.

rsync would list, compare and rename each of them. This is for what is not at home at all yet; what does not come whole,
for whatever reason, is left to rsync, which tells why.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsm_core.remote import confined, manifest
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.remote.parcel import LIGHT
from hsm_core.space import NO_SPACE
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.program import Program
from hsm_core.ssh.visit import in_time

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""seconds for one stream"""
TRIES = 3
"""streams that may fail in a row until no more is tried: what can't be read may also be the end of a connection"""


class Parcels:
    """Brings parcels from the sweep's directory `place` on a host.

    `command` starts `hsm_core.remote.parcel` there; it stays for the next ones, in one channel. Threads may share it.
    """

    def __init__(self, connection: Connection, command: Sequence[str], place: str) -> None:
        self._connection = connection
        self._script = f"exec {shlex.join(command)}\n"
        self._place = place
        self._failures = 0
        """in a row"""
        self._program: Program | None = None
        self._lock = threading.Lock()

    def bring(self, outputs: Mapping[str, str], into: Path) -> Sequence[str]:
        """Bring the output directories of these attempts to the same names below `into`, an empty folder.

        Returns the attempts that came as their manifests say. Raises Unavailable where nothing can be started there,
        OSError where there is no room at home.
        """
        with self._lock:
            return self._bring(outputs, into) if self._failures < TRIES else ()

    def _bring(self, outputs: Mapping[str, str], into: Path) -> Sequence[str]:
        came = []
        program = self._program or self._connection.run(self._script)
        self._program = None  # until it has answered all that it was asked
        try:
            with in_time(program, PATIENCE):
                program.stdin.write(json.dumps({"sweep": self._place, "outputs": outputs}).encode() + b"\n")
                for attempt, files in _parcels(program, outputs):
                    if _unpacked(os.path.join(into, outputs[attempt]), files):
                        came.append(attempt)
            self._program, self._failures = program, 0
        except (ValueError, EOFError, BrokenPipeError) as e:
            self._failures += 1
            log.info("%s: no parcels from there: %s %s", self._connection.address, e, program.errors().strip()[-500:])
        finally:
            if self._program is None:
                program.close()
        return came


File = tuple[tuple[str, ...], bytes, int, bool]
"""path, content, modification time in ns, whether it is executable"""


def _parcels(program: Program, outputs: Mapping[str, str]) -> Iterator[tuple[str, Sequence[File]]]:
    """Those that are whole. Raises ValueError for what is none, EOFError where the stream ends before its time."""
    for expected in outputs:
        head: dict[str, Any] = json.loads(program.stdout.readline(LINE_LIMIT) or "null") or {}
        if not isinstance(head, dict) or head.get("id") != expected:
            raise ValueError("something else came instead of a parcel")
        if "entries" in head:
            files = _files(program, head["entries"], head.get("facts"))
            if files is not None:
                yield expected, files


def _files(program: Program, entries: object, facts: object) -> Sequence[File] | None:
    """The files of one parcel; None where one has another content than the manifest says. Raises as `_parcels`."""
    if not isinstance(entries, list) or not isinstance(facts, list) or len(facts) != len(entries):
        raise ValueError("a parcel does not tell of its files what it must")
    if not all(map(manifest.is_entry, entries)) or not all(map(_is_fact, facts)):
        raise ValueError("a parcel does not tell of its files what it must")
    if any("sha256" not in entry for entry in entries) or sum(entry["size"] for entry in entries) > LIGHT:
        raise ValueError("a parcel is larger than it may be")
    files, whole = [], True
    for entry, (time, executable) in zip(entries, facts, strict=True):
        content = _exactly(program, entry["size"])
        whole = whole and hashlib.sha256(content).hexdigest() == entry["sha256"]
        files.append((confined.parts(entry["name"]), content, time, executable))
    return files if whole else None


def _is_fact(fact: object) -> bool:
    return isinstance(fact, list) and len(fact) == 2 and type(fact[0]) is int and type(fact[1]) is bool


def _exactly(program: Program, size: int) -> bytes:
    pieces = []
    while size > 0:
        piece = program.stdout.read(size)
        if not piece:
            raise EOFError("the stream ended in the middle of a parcel")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _unpacked(folder: str, files: Sequence[File]) -> bool:
    """Write the files below the folder, which is new; whether that worked. Raises OSError for a full disk."""
    try:
        os.makedirs(folder)
        made: dict[tuple[str, ...], str] = {(): folder}
        for path, content, time, executable in files:
            name = os.path.join(_folder(path[:-1], made), path[-1])
            mode = 0o777 if executable else 0o666
            with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb", buffering=0) as file:
                file.write(content)
            os.utime(name, ns=(time, time))
    except (OSError, OverflowError, UnicodeEncodeError) as e:
        if isinstance(e, OSError) and e.errno in NO_SPACE:
            raise
        return False
    return True


def _folder(path: tuple[str, ...], made: dict[tuple[str, ...], str]) -> str:
    """The folder at this path, made if need be."""
    if path not in made:
        made[path] = os.path.join(_folder(path[:-1], made), path[-1])
        os.mkdir(made[path])
    return made[path]
