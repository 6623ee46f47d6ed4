"""What a source needs here, looked at step by step for `hsm sources test`; then it becomes an agent without a sweep.

Its standard input begins with one JSON object on a line, what is to be looked at. Each fact is a line behind the token.
Nothing stays here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from hsm_core.remote import gpus, health, leases, process

PATIENCE = 10.0
"""seconds rsync gets to say which version it is"""
_PROBE = 1 << 16
"""bytes that are written: a full disk may have room for an empty file still"""


def main(args: list[str]) -> NoReturn:
    """A token, which stands before what is said to the launcher."""
    (token,) = args
    wanted: Mapping[str, Any] = json.loads(_line())
    look: Mapping[str, Callable[[], Mapping[str, Any]]] = {
        "folder": lambda: _writing(wanted["folder"]),
        "disk": lambda: dict(zip(("free", "percent"), health.room(wanted["folder"]), strict=True)),
        "project": lambda: _entering(wanted["project"]),
        "hydra": _hydra,
        "rsync": _rsync,
        "gpus": lambda: _devices(wanted["gpus"]),
    }
    for name in wanted["steps"]:
        process.write_all(1, f"{token} {json.dumps({'step': name, **look[name]()})}\n".encode())
    program = os.path.join(os.path.dirname(__file__), "__main__.py")
    os.execv(sys.executable, [sys.executable, *process.interpreter_flags(), program, "agent", wanted["mode"]])  # noqa: S606


def _line() -> bytes:
    """The first line of the input; nothing follows it before all is told."""
    data = b""
    while not data.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:
            sys.exit(1)
        data += chunk
    return data


def _hydra() -> dict[str, Any]:
    """The version of Hydra that tasks would import, or why they can't."""
    try:
        import hydra
    except ModuleNotFoundError as e:
        return {"version": None, "missing": e.name == "hydra", "reason": str(e)}
    except Exception as e:  # code of others, of any state of decay
        return {"version": None, "missing": False, "reason": f"{type(e).__name__}: {e}"}
    return {"version": hydra.__version__}


def _writing(folder: str) -> dict[str, Any]:
    """Whether something can be written there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as e:
        return {"reason": e.strerror or str(e)}
    return {"reason": None}


def _entering(folder: str) -> dict[str, Any]:
    """Whether the project's folder is one that can be listed."""
    try:
        os.listdir(folder)
    except OSError as e:
        return {"reason": e.strerror or str(e)}
    return {"reason": None}


def _rsync() -> dict[str, Any]:
    """What rsync says of its version; None where there is none."""
    program = shutil.which("rsync")
    if program is None:
        return {"version": None}
    try:
        done = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return {"version": None}
    return {"version": done.stdout.decode(errors="replace").partition("\n")[0][:200]}


def _devices(wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The models of the GPUs that tasks would get, by what `gpus.request` wants; for None those that they would see."""
    try:
        found = gpus.seen(os.environ) if wanted is None else gpus.leasable(**wanted, environ=os.environ)
        place = leases.place(device.id for device in found) if found else None
    except gpus.GpuError as e:
        return {"models": [], "leases": None, "reason": str(e)}
    return {"models": [device.model for device in found], "leases": place, "reason": None}
