"""What a scheduler gave to the job that a process is part of, by the job's variables."""

from __future__ import annotations

from collections.abc import Mapping


def gpus(environ: Mapping[str, str]) -> list[str] | None:
    """The GPUs of a job on this node, as CUDA_VISIBLE_DEVICES names them; None where it has none.

    Slurm sets that for whichever kind of GPU, as places among those that the job can see; jobs without any may have it
    from the shell that submitted them, but not SLURM_JOB_GPUS (sbatch(1), OUTPUT ENVIRONMENT VARIABLES).
    """
    of_slurm = "SLURM_JOB_ID" in environ
    names = environ.get("SLURM_JOB_GPUS", "") if of_slurm else ""
    if not of_slurm or names:
        names = environ.get("CUDA_VISIBLE_DEVICES") or names
    return [name.strip() for name in names.split(",") if name.strip()] or None


def memory(environ: Mapping[str, str]) -> float | None:
    """MiB that a job of Slurm has on this node, whether it asked for that or not; None: nobody says."""
    whole, each, cpus = (environ.get(f"SLURM_{name}", "") for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    if whole.isdecimal() and int(whole):
        return float(whole)
    return float(each) * float(cpus) if each.isdecimal() and int(each) and cpus.isdecimal() else None
