"""Which scheduler a source's jobs go to."""

from __future__ import annotations

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.sources.hpc.pbs import Pbs
from hsm_core.sources.hpc.scheduler import Scheduler
from hsm_core.sources.hpc.site import Site
from hsm_core.sources.hpc.slurm import Slurm

COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol", "srun"),
    "pbs": ("qsub", "qstat", "qdel", "qselect"),
}


def scheduler_of(config: SourceConfig, site: Site) -> Scheduler:
    """The scheduler that the source names, or the one whose commands are on the site's PATH.

    Slurm comes first: it may bring commands that look like those of PBS. Raises SourceError where commands are missing.
    """
    missing = set(site.missing([name for commands in COMMANDS.values() for name in commands]))
    found = [system for system, commands in COMMANDS.items() if commands[0] not in missing]
    system = config.system or next(iter(found), None)
    where, way = ("", "start the sweep on") if config.host is None else (" there", "`host` must be")
    if system is None:
        raise SourceError(f"there is neither sbatch nor qsub on PATH{where}; {way} a node that submits jobs")
    lacking = [name for name in COMMANDS[system] if name in missing]
    if lacking:
        raise SourceError(f"not on PATH{where}: {', '.join(lacking)}; {way} a node that submits jobs")
    return Slurm(site) if system == "slurm" else Pbs(site)
