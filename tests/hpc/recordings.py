"""Outputs of a real Slurm, as `tests/testbed/slurm_outputs` and `tests/hpc/recorded` hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTBED = Path(__file__).parents[1] / "testbed" / "slurm_outputs"
OWN = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Answer:
    command: str
    out: str
    err: str
    code: int | None
    """None: it was killed, as it took too long"""


def answers(path: Path) -> Iterator[Answer]:
    """The commands of a recording and what they answered."""
    for block in re.split(r"^(?=\$ )", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        command, _, rest = block.removeprefix("$ ").partition("\n")
        end = re.search(r"\[(?:exit (\d+)|killed)[^\n]*\]$", rest, re.MULTILINE)
        assert end is not None, f"{path.name}: the end of '{command}' is missing"
        out, _, err = rest[: end.start()].partition("[stderr]\n")
        yield Answer(command, out, err, None if end[1] is None else int(end[1]))


def answer(path: Path, command: str) -> Answer:
    """The first answer to a command that begins so."""
    return next(one for one in answers(path) if one.command.startswith(command))
