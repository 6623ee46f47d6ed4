"""How a program of ours begins that a launcher on another machine has started: it hears for which sweep it works.

Its standard input begins with one JSON object on a line: `sweep`, the sweep's directory; `folders` that are to be
there, below that or absolute; `size`, the bytes of a tar archive with what the launcher froze, which follows. What
comes behind that is the program's own.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from typing import Any

from hsm_core.remote import process

_CHUNK = 1 << 16


class Input:
    """The standard input, of which no more is read than is asked for, or kept."""

    def __init__(self) -> None:
        self._read = bytearray()

    def line(self) -> bytes:
        """The next line, without its end. Where there is none any more, this process ends."""
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            self._more()
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def take(self, size: int) -> bytes:
        """So many bytes; ends as `line` does."""
        while len(self._read) < size:
            self._more()
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def rest(self) -> bytes:
        """What was read already of what follows."""
        return bytes(self._read)

    def _more(self) -> None:
        chunk = os.read(0, _CHUNK)
        if not chunk:
            sys.exit(1)
        self._read += chunk


def accept(stream: Input) -> Mapping[str, Any]:
    """Put in place what a launcher sends; returns its words. Raises OSError."""
    wanted: Mapping[str, Any] = json.loads(stream.line())
    packed = stream.take(wanted["size"])
    for name in wanted["folders"]:
        os.makedirs(os.path.join(wanted["sweep"], name), mode=0o700, exist_ok=True)
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(os.path.join(wanted["sweep"], ".hsm"))  # noqa: S202 - our own launcher's
    return wanted


def say(token: str, **facts: Any) -> None:
    """Tell the launcher, behind the token that stands before our words."""
    process.write_all(1, f"{token} {json.dumps(facts)}\n".encode())
