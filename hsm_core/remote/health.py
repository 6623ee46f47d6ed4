"""How a host is: load, memory, room on a disk, GPUs, for how long it has been up."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from hsm_core.remote.commands import Commands

PATIENCE = 10.0
"""seconds nvidia-smi gets"""
_QUERY = ("--query-gpu=uuid,memory.total,memory.free,utilization.gpu,name", "--format=csv,noheader,nounits")
"""the name comes last: it may hold commas"""
_MIB = 1 << 20


def tell(folder: str, commands: Commands, answer: Callable[..., None], *, gpus: bool) -> None:
    """Answer with `facts` of the host, and with those of `gpus` where they are asked for and nvidia-smi is there.

    That runs as one of `commands`, so this returns at once. `took`: seconds until the answer.
    """
    began = time.monotonic()
    found = facts(folder)
    program = shutil.which("nvidia-smi") if gpus else None
    hangs = program is not None and commands.stuck(program)
    if program is None or hangs:
        problem = "nvidia-smi hangs since it was last asked, and can't be killed" if hangs else None
        answer(took=time.monotonic() - began, gpus=[], gpu_problem=problem, **found)
        return

    def add(**ended: Any) -> None:
        answer(took=time.monotonic() - began, **gpu_facts(ended), **found)

    commands.start([program, *_QUERY], PATIENCE, add)


def facts(folder: str) -> dict[str, Any]:
    """Facts of this host; the disk is the one of `folder`. Memory and disk are in MiB, `uptime` in seconds.

    `load`: running processes per core, on average over the last minute.
    """
    total, available = _memory()
    free, share = room(folder)
    return {
        "load": _load(),
        "memory_total": total,
        "memory_available": available,
        "disk_free": free,
        "disk_free_percent": share,
        "uptime": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
    }


def _load() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:  # not told everywhere
        return None


def _memory() -> tuple[float | None, float | None]:
    """MiB there are, and of which programs can have some without swapping (MemAvailable of proc(5)), where known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in f)}
        return kibibytes["MemTotal"] / 1024, kibibytes["MemAvailable"] / 1024
    except (OSError, LookupError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MIB, None


def room(folder: str) -> tuple[float | None, float | None]:
    """MiB that are free on a folder's disk, and in percent, as df counts: what is kept for root is left out of both."""
    try:
        disk = os.statvfs(folder)
    except OSError:  # somebody removed the folder
        return None, None
    share = 100 * disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail)
    return disk.f_bavail * disk.f_frsize / _MIB, share


def gpu_facts(ended: Mapping[str, Any]) -> dict[str, Any]:
    """What nvidia-smi told of GPUs, given how it ended as `Commands` tells: `gpus`, and what went wrong."""
    if "error" in ended:
        return {"gpus": [], "gpu_problem": f"nvidia-smi: {ended['error']}"}
    if ended["exit_code"] != 0:
        words = (ended["stderr"] or ended["stdout"]).strip()[-500:]
        return {"gpus": [], "gpu_problem": f"nvidia-smi failed with {ended['exit_code']}: {words}"}
    lines = [line.split(", ", 4) for line in ended["stdout"].splitlines()]
    return {"gpus": [_gpu(*line) for line in lines if len(line) == 5], "gpu_problem": None}


def _gpu(uuid: str, total: str, free: str, used: str, model: str) -> dict[str, Any]:
    return {
        "id": uuid,
        "model": model,
        "memory_total": _number(total),
        "memory_free": _number(free),
        "utilisation": _number(used),
    }


def _number(text: str) -> float | None:
    """`[N/A]` stands for what a GPU does not tell, as one split into MIG devices does not tell its utilisation."""
    return float(text) if text.replace(".", "", 1).isdecimal() else None
