"""The program of a far site (`hsm_core.remote.site`) on this machine, as if it were at the end of a connection."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hsm_core.remote

PROGRAM = Path(hsm_core.remote.__file__).with_name("__main__.py")


class Line:
    """A program on this machine, with the ways of one at the end of a connection."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = _Input(self.process.stdin), self.process.stdout

    def errors(self) -> str:
        return "it said so"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def let_go(self) -> None:
        """It is closed, and nobody reads it any more."""
        self.close()
        with contextlib.suppress(BrokenPipeError), self.process:
            pass


class _Input:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> None:
        self._pipe.write(data)
        self._pipe.flush()


def reach(folder: Path) -> Line:
    """The program of sites, once it was told for which sweep it works."""
    line = Line(sys.executable, str(PROGRAM), "site", "token")
    line.stdin.write(json.dumps({"sweep": str(folder), "folders": [], "size": 0}).encode() + b"\n")
    assert line.stdout.readline() == b"token {}\n"
    return line
