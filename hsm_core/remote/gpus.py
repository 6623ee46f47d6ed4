"""GPUs of a host: which there are, which of them tasks may get, and how a task is shown the ones it got.

What counts is what `nvidia-smi -L` lists, narrowed by the CUDA_VISIBLE_DEVICES that the agent
inherited. Where there is no nvidia-smi, what was inherited or configured is taken at its word.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
BY_BUS = "PCI_BUS_ID"
"""the order in which nvidia-smi counts (CUDA Programming Guide, "CUDA Environment Variables")"""
PATIENCE = 30.0
"""seconds nvidia-smi gets; it loads the driver's state, which takes long where nothing else keeps it loaded"""

_GPU = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[^\s)]+)\)")
_MIG = re.compile(r"MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^\s)]+)\)")


class GpuError(Exception):
    """The GPUs that were asked for are not to be had here; the text says why and what to do."""


@dataclass(frozen=True)
class Device:
    """What CUDA takes for one device: a GPU, or a MIG device, which is a part of a GPU."""

    id: str
    """its UUID, by which everybody on the host means the same device; its index where no UUID is known"""
    name: str
    """how CUDA_VISIBLE_DEVICES names it for tasks"""
    model: str
    index: str
    """of its GPU"""
    gpu: str
    """UUID of its GPU"""

    def __str__(self) -> str:
        return f"{self.name} ({self.model})" if self.model else self.name


def request(wanted: str | int | Sequence[Any] | None, per_task: float | None) -> dict[str, Any] | None:
    """What a source's `gpus` and the sweep's `gpus_per_task` ask for, None where both are silent.

    The arguments of `leasable`: without `gpus` all there are, without `gpus_per_task` one a task
    where the source has any.
    """
    if wanted is None and per_task is None:
        return None
    if per_task is None:
        per_task = 0.0 if wanted in (0, []) else 1.0
    return {"wanted": "auto" if wanted is None else wanted, "per_task": per_task}


def leasable(wanted: str | int | Sequence[Any], per_task: float, environ: Mapping[str, str]) -> list[Device]:
    """The devices of this host that tasks may get, each of them `per_task` devices or a fraction of one.

    `wanted`: `auto` for all that are visible, the number of them, or a list of indices as nvidia-smi
    counts and of UUIDs. Raises GpuError where they are not there, or too few for a task.
    """
    if per_task == 0:
        return []
    listing = nvidia_smi(environ)
    inherited = environ.get(VISIBLE)
    devices = parse(listing) if listing is not None else _unlisted(wanted, inherited)
    if inherited is not None:
        devices = visible(devices, inherited, environ.get(ORDER, BY_BUS))
    because = f" ({VISIBLE} is {inherited!r})" if inherited is not None else ""
    if listing is not None and not devices and not because:
        because = f" (nvidia-smi -L says: {listing})"
    found = chosen(devices, wanted, f"there are {_told(devices)}{because}")
    if len(found) < per_task:
        many = f"{per_task:g} GPUs" if per_task > 1 else f"{per_task:g} GPU"
        raise GpuError(f"gpus_per_task: each task is to get {many}, but what it can get is {_told(found)}{because}")
    return found


def seen(environ: Mapping[str, str]) -> list[Device]:
    """The devices that tasks without a lease see, as far as nvidia-smi tells. Raises GpuError when that fails."""
    listing, inherited = nvidia_smi(environ), environ.get(VISIBLE)
    devices = [] if listing is None else parse(listing)
    return devices if inherited is None else visible(devices, inherited, environ.get(ORDER, BY_BUS))


def nvidia_smi(environ: Mapping[str, str]) -> str | None:
    """What `nvidia-smi -L` prints, None where it is not installed. Raises GpuError when it fails."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    return None if program is None else _listing(program)


@cache  # it may take seconds, and a launcher with several sources asks for each of them
def _listing(program: str) -> str:
    child = subprocess.Popen(
        [program, "-L"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        out = child.communicate(timeout=PATIENCE)[0].decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        child.kill()
        assert child.stdout is not None
        child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)  # no longer: where the driver hangs, it can't be killed
        raise GpuError(
            f"{program} -L did not answer within {PATIENCE:g} s; does it answer in a terminal? "
            f"After a fault of a GPU its driver may need a restart"
        ) from None
    if child.returncode != 0:
        raise GpuError(f"{program} -L failed with {child.returncode}: {out}")
    return out


def parse(listing: str) -> list[Device]:
    """The devices that `nvidia-smi -L` lists. A GPU split into MIG devices can't be used as a whole.

    MIG UUIDs of drivers before R470 hold the GPU's, and slashes (NVIDIA MIG User Guide, "Device Enumeration").
    Lines of another kind, as for a GPU that fell off the bus, are passed over.
    """
    devices: list[Device] = []
    for line in map(str.strip, listing.splitlines()):
        if (gpu := _GPU.fullmatch(line)) is not None:
            index, model, uuid = gpu.groups()
            devices.append(Device(uuid, index, model, index, uuid))
        elif devices and (mig := _MIG.fullmatch(line)) is not None:
            profile, part = mig.groups()
            if devices[-1].id == uuid:
                devices.pop()
            devices.append(Device(part, part, f"{model} {profile}", index, uuid))
    return devices


def _unlisted(wanted: str | int | Sequence[Any], inherited: str | None) -> list[Device]:
    """The devices that must be there where nobody lists them."""
    names: Iterable[Any]
    if inherited is not None:
        names = [name.strip() for name in inherited.split(",")]
    elif isinstance(wanted, int):
        names = range(wanted)
    elif isinstance(wanted, str):
        raise GpuError(
            "nvidia-smi is not installed here, so nobody tells which GPUs there are; "
            "name them, as in `gpus: 4` or `gpus: [0, 1]`, or leave out gpus and gpus_per_task"
        )
    else:
        names = wanted
    return [Device(n, n, "", n, n) for n in map(str, names) if n.isdecimal() or n.startswith(("GPU-", "MIG-"))]


def visible(devices: Sequence[Device], inherited: str, order: str) -> list[Device]:
    """Those that an inherited CUDA_VISIBLE_DEVICES lets a process see, in its order and named as it names them.

    As CUDA does, it stops at the first name that stands for no device (CUDA Programming Guide, "CUDA
    Environment Variables"), `-1` and `NoDevFiles` among them. A GPU split into MIG devices
    stands for them. Raises GpuError where `order` gives indices a meaning that nvidia-smi doesn't tell.
    """
    found: dict[str, Device] = {}
    for name in map(str.strip, inherited.split(",")):
        if name.isdecimal() and order != BY_BUS:
            raise GpuError(
                f"with {ORDER}={order} nobody can tell which GPUs {VISIBLE}={inherited} means; "
                f"write UUIDs there (nvidia-smi -L shows them), or leave {ORDER} out"
            )
        named = _named(devices, name)
        if not named:
            break
        for device in named:
            whole = device.id == device.gpu or device.id.startswith(name)
            found.setdefault(device.id, replace(device, name=name) if whole else device)
    return list(found.values())


def chosen(devices: Sequence[Device], wanted: str | int | Sequence[Any], told: str) -> list[Device]:
    """Those of the visible devices that the configuration wants; `told` says in words which there are.

    Raises GpuError where one is not among them, or there are fewer.
    """
    if isinstance(wanted, str):
        return list(devices)
    if isinstance(wanted, int):
        if wanted > len(devices):
            raise GpuError(f"gpus: {wanted} are wanted, but {told}")
        return list(devices[:wanted])
    found: dict[str, Device] = {}
    for name in map(str, wanted):
        named = _named(devices, name)
        if not named:
            raise GpuError(f"gpus: {name} is wanted, but {told}")
        found.update((device.id, device) for device in named)
    return list(found.values())


def _named(devices: Sequence[Device], name: str) -> list[Device]:
    """What an index, or the beginning of a UUID, stands for: the devices of one GPU, or none."""
    uuid = name.startswith(("GPU-", "MIG-"))
    named = [d for d in devices if (d.id.startswith(name) or d.gpu.startswith(name) if uuid else d.index == name)]
    return named if len({d.gpu for d in named}) == 1 else []


def _told(devices: Sequence[Device]) -> str:
    return ", ".join(map(str, devices)) or "none"


def environment(names: Sequence[str]) -> dict[str, str]:
    """The variables that show a task these devices and no others."""
    shown = {VISIBLE: ",".join(names)}
    return {**shown, ORDER: BY_BUS} if any(name.isdecimal() for name in names) else shown


def show(names: Sequence[str]) -> None:
    """Let this process, and what it starts, see these devices and no others; CUDA must not have been used yet."""
    os.environ.update(environment(names))
    # torch 2.0 to 2.3 keeps the count it took while the app was imported (pytorch/pytorch#122815).
    torch: Any = sys.modules.get("torch")
    count = getattr(getattr(torch, "cuda", None), "device_count", None)
    if count is not None and hasattr(count, "cache_clear"):
        count.cache_clear()


def opened(folder: str = "/proc/self/fd") -> str | None:
    """The device file by which this process uses a GPU for computing, None where it does not.

    CUDA opens nvidia-uvm when it is initialised (dxg in WSL), ROCm opens kfd; NVML, which only
    looks, opens neither.
    """
    for fd in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            path = os.readlink(os.path.join(folder, fd))
        except OSError:  # the descriptor by which the folder was listed
            continue
        if path in ("/dev/nvidia-uvm", "/dev/kfd", "/dev/dxg"):
            return path
    return None
