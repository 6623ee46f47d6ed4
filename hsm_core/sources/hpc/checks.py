"""`hsm sources test` of a cluster: whether its scheduler can be asked, and what that allows."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from hsm_core.exceptions import SourceError
from hsm_core.sources.hpc.slurm import Slurm
from hsm_core.sources.steps import Step, Walk


def check(tell: Callable[[Step], None]) -> None:
    """Go through all that a source on this machine's cluster needs; each step is told once it is done."""
    walk = Walk(["commands", "scheduler"], tell)
    try:
        commands = {name: shutil.which(name) for name in ("sbatch", "squeue", "scancel", "scontrol", "srun")}
        missing = [name for name, found in commands.items() if found is None]
        if missing:
            raise SourceError(f"not on PATH: {', '.join(missing)}; log in to a node that submits jobs")
        walk.reach("commands", str(commands["sbatch"]))
        scheduler = Slurm()
        scheduler.start()
        walk.reach("scheduler", scheduler.facts())
    except SourceError as e:
        walk.fail(str(e))
