"""Which scheduler a source's jobs go to."""

from __future__ import annotations

import shutil

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.sources.hpc.pbs import Pbs
from hsm_core.sources.hpc.scheduler import Scheduler
from hsm_core.sources.hpc.slurm import Slurm

COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol", "srun"),
    "pbs": ("qsub", "qstat", "qdel", "qselect"),
}


def scheduler_of(config: SourceConfig) -> Scheduler:
    """The scheduler that the source names, or the one whose commands are on PATH.

    Slurm comes first: it may bring commands that look like those of PBS. Raises SourceError where commands are missing.
    """
    if config.host is not None:
        raise SourceError("host of a cluster is not in this version of hsm; leave it out, on a node that submits jobs")
    found = [system for system, commands in COMMANDS.items() if shutil.which(commands[0]) is not None]
    system = config.system or next(iter(found), None)
    if system is None:
        raise SourceError("there is neither sbatch nor qsub on PATH; start the sweep on a node that submits jobs")
    missing = [name for name in COMMANDS[system] if shutil.which(name) is None]
    if missing:
        raise SourceError(f"not on PATH: {', '.join(missing)}; log in to a node that submits jobs")
    return Slurm() if system == "slurm" else Pbs()
