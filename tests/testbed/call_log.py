"""Slurm's programs with others before them on PATH: to count calls, or to have them say what some site's do."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")


def before(folder: Path, environ: Mapping[str, str], scripts: Mapping[str, str]) -> dict[str, str]:
    """An environment with these shell scripts first on PATH, by the programs in whose place they stand.

    In a script `$REAL` is the program itself, "$@" what it is asked.
    """
    folder.mkdir(parents=True)
    for name, text in scripts.items():
        real = shutil.which(name, path=environ["PATH"])
        assert real is not None, name
        (folder / name).write_text(f"#!/bin/sh\nREAL={shlex.quote(real)}\n{text}\n")
        (folder / name).chmod(0o755)
    return {**environ, "PATH": f"{folder}:{environ['PATH']}"}


class CallLog:
    """Counts the calls of Slurm's programs."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "calls"
        self._log.touch()
        noted = {name: f'echo {name} >>{shlex.quote(str(self._log))}\nexec $REAL "$@"' for name in PROGRAMS}
        self.environ = before(folder / "bin", environ, noted)
        """with programs first on PATH that are counted"""

    def counts(self) -> Counter[str]:
        """How often each of them was called."""
        return Counter(self._log.read_text().split())
