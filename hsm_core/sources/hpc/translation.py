"""Resources in the words of a scheduler: parameters of submitit's Slurm executor, and of our PBS executor."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

from hsm_core.sources.hpc.extra import of_slurm
from hsm_core.sources.hpc.resources import Problems, Resources


def slurm(resources: Resources) -> dict[str, Any]:
    """What `submitit.SlurmExecutor.update_parameters` takes.

    `time` is in minutes, rounded up as sbatch does; None, which takes submitit's own 5 minutes away, leaves it to the
    partition. Raises ValueError for what Slurm has no words for.
    """
    _refuse(lacking(resources, "slurm"))
    gpus = resources.gpus or None
    named = {
        "partition": resources.queue,
        "account": resources.account,
        "qos": resources.qos,
        "cpus_per_task": resources.cpus_per_task,
        "mem": _megabytes(resources.mem),
        "mem_per_cpu": _megabytes(resources.mem_per_cpu),
        "mem_per_gpu": _megabytes(resources.mem_per_gpu),
        "gpus_per_node": f"{resources.gpu_type}:{gpus}" if gpus and resources.gpu_type else gpus,
        "gres": resources.gres,
        "constraint": resources.constraint,
        "nodelist": resources.nodelist,
        "exclude": resources.exclude,
        "exclusive": resources.exclusive or None,
    }
    # submitit starts a process for each task on each node by srun, and waits for a result of every one. An attempt is
    # one process, so its room goes past submitit's own `nodes` and `ntasks_per_node`.
    further = {
        "nodes": resources.nodes,
        "ntasks": resources.ntasks,
        "ntasks-per-node": resources.ntasks_per_node,
        "tmp": _megabytes(resources.tmp),
        "reservation": resources.reservation,
        "licenses": resources.licenses,
    }
    further |= {key: ",".join(value) if isinstance(value, tuple) else value or None for key, value in resources.extra}
    return {
        **_said(named),
        "time": None if resources.walltime is None else math.ceil(resources.walltime / 60),
        "use_srun": False,
        "additional_parameters": _said(further),
    }


def pbs(resources: Resources) -> dict[str, Any]:
    """What the executor of `hsm_core.pbs` takes: `select`, `place`, `walltime` (seconds), `queue`, `account`, `extra`.

    A node of Slurm is a chunk, and several are on as many hosts (pbs_resources(7B)). A walltime of None leaves it to
    the queue. `extra` is a list of options with their values, as they stand behind `#PBS`. Raises ValueError for what
    PBS has no words for.
    """
    _refuse(lacking(resources, "pbs"))
    nodes, tasks = resources.nodes or 1, resources.tasks_per_node
    chunk = {
        "ncpus": resources.cpus,
        "mpiprocs": tasks if tasks > 1 else None,
        "mem": None if resources.memory is None else f"{resources.memory}mb",
        "ngpus": resources.gpu_count or None,
        "host": resources.nodelist,
    }
    place = [*(["scatter"] if nodes > 1 else []), *(["exclhost"] if resources.exclusive else [])]
    options: list[str] = []
    for key, value in resources.extra:
        if value is True:
            options.append(f"-{key}")
        elif value:
            options += [f"-{key} {shlex.quote(one)}" for one in (value if isinstance(value, tuple) else (value,))]
    further = {
        "place": ":".join(place) or None,
        "queue": resources.queue,
        "account": resources.account,
        "extra": options or None,
    }
    return {
        "select": ":".join([str(nodes), *(f"{name}={value}" for name, value in _said(chunk).items())]),
        "walltime": resources.walltime,
        **_said(further),
    }


def lacking(resources: Resources, system: str) -> Problems:
    """What `slurm` or `pbs` has no words for: the fields of the resources, and what to write instead."""
    if system == "slurm":
        return [
            ("extra", f"'{key}' is an option of PBS; Slurm's go by their long names, as in mail-type")
            for key, value in resources.extra
            if value and not of_slurm(key)
        ]
    elsewhere = "ask for a resource of your site with extra, as in {l: gpu_model=a100}"
    words = {
        "gpu_type": f"PBS has no types of GPUs; {elsewhere}",
        "constraint": f"PBS has no constraints; {elsewhere}",
        "tmp": f"PBS has no tmp; {elsewhere}",
        "licenses": f"PBS has no licenses; {elsewhere}",
        "qos": f"PBS has no qos; {elsewhere}",
        "reservation": "a reservation of PBS is a queue; name it with queue",
        "exclude": "PBS can't leave out hosts by their names",
    }
    found = [(name, text) for name, text in words.items() if getattr(resources, name)]
    if resources.gres and not re.fullmatch(r"gpu(:\d+)?", resources.gres):
        found.append(("gres", f"of gres PBS knows only GPUs, as in gpus=2; {elsewhere}"))
    if resources.nodelist and (re.search(r"[^\w.-]", resources.nodelist) or (resources.nodes or 1) > 1):
        found.append(("nodelist", "PBS takes one host by its name, for a job of one node"))
    found += [
        ("extra", f"'{key}' is an option of Slurm; those of PBS are letters, as in {{W: group_list=staff}}")
        for key, value in resources.extra
        if value and of_slurm(key)
    ]
    return found


def _refuse(problems: Problems) -> None:
    if problems:
        raise ValueError("; ".join(f"{field}: {text}" for field, text in problems))


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _megabytes(memory: int | None) -> str | None:
    return None if memory is None else f"{memory}M"
