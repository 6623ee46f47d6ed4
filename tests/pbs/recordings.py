"""What a real OpenPBS answered: `recorded/NN_*.txt`, each a session at a terminal, kept as it was.

A session is a list of `$ command`, its stdout, an `[stderr]` block if there was any, and `[exit N, ...]`. In the
recordings, what stood behind the directory in Error_Path and Output_Path is cut off, with the end of the line; reading
puts the quote and the comma back which JSON had there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hsm_core.pbs.text import Answer

FOLDER = Path(__file__).with_name("recorded")
_ONE = re.compile(r"^\$ (.*?)^\[exit (\d+), [^\n]*\]$", re.MULTILINE | re.DOTALL)
_CUT = re.compile(r'^(\s*"(?:Error|Output)_Path":\s*"[^"\n]*)$', re.MULTILINE)


@dataclass(frozen=True)
class Exchange:
    """One line at the terminal, and what came of it."""

    recording: str
    command: str
    out: str
    err: str
    code: int

    @property
    def answer(self) -> Answer:
        """As of the command alone; a pipe behind it only took lines away."""
        words = shlex.split(self.command.split("|")[0])
        return Answer([words[0].rsplit("/", 1)[-1], *words[1:]], self.code, self.out, self.err)


@cache
def exchanges() -> Sequence[Exchange]:
    """All that were recorded."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        for command, code in _ONE.findall(path.read_text(errors="replace")):
            line, _, said = command.partition("\n")
            out, _, err = said.partition("[stderr]\n")
            found.append(Exchange(path.name.split("_")[0], line, _CUT.sub(r'\1",', out), err, int(code)))
    return found


def recorded(recording: str, command: str, nth: int = 0) -> Exchange:
    """The nth time that this command was given in a recording; a command may be shortened to how it begins."""
    given = [one for one in exchanges() if one.recording == recording and one.command.startswith(command)]
    exact = [one for one in given if one.command == command]
    return (exact or given)[nth]
