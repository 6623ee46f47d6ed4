"""What a host is given before its agent can run: our code, and what the launcher froze for the tasks.

The code travels as one archive, which stays there under the hash of its content.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import hsm_core
import hsm_core.remote
from hsm_core.remote.places import Places

BASE = "~/.hsm"
"""the folder of ours in the home of a host's user"""


@lru_cache(maxsize=1)
def archive() -> tuple[bytes, str]:
    """All that runs there, as a zip archive, and the SHA-256 of it in hex. The same files give the same bytes."""
    remote = Path(hsm_core.remote.__file__).parent
    files = [Path(hsm_core.__file__), *sorted(remote.glob("*.py"))]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            name = file.relative_to(remote.parent.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    data = packed.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def boot_program() -> str:
    """The text of the program that takes the archive, see there."""
    return Path(hsm_core.remote.__file__).with_name("boot.py").read_text("utf-8")


def program(base: str) -> str:
    """The path of our programs' start (`hsm_core.remote.__main__`), once our code is below our folder `base` there."""
    return os.path.join(base, "agent", archive()[1], "hsm_core", "remote", "__main__.py")


def command(base: str, python: str, role: str) -> Sequence[str]:
    """Starts a program of ours that needs nothing but Python."""
    return [python, "-I", "-S", program(base), role]


def delivery(payload: Path, places: Places, cwd: str, *, frozen: bool) -> bytes:
    """A payload folder and the snapshot it names as a tar archive, to be unpacked in the `.hsm` of a sweep there.

    Paths are as they are there; where the launcher's working directory is nowhere there, tasks begin in `cwd`. Without
    `frozen` tasks read the project's code and configurations as they are there.
    """
    facts: dict[str, Any] = json.loads((payload / "payload.json").read_text("utf-8"))
    if not frozen:
        facts["frozen"] = {root: copy for root, copy in facts["frozen"].items() if os.path.basename(copy) != "project"}
        facts["learnt"] = False
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        _add(archive, f"{payload.name}/payload.json", json.dumps(_there(facts, places, cwd)).encode())
        _add(archive, f"{payload.name}/payload.pkl", (payload / "payload.pkl").read_bytes())
        for copy in facts["frozen"].values():
            target = Path(os.path.normpath(payload / copy))
            archive.add(target, os.path.relpath(target, payload.parent))
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    archive.addfile(entry, io.BytesIO(data))


def _there(facts: Mapping[str, Any], places: Places, cwd: str) -> dict[str, Any]:
    """The facts of a payload (`hsm_core.payload`) as they are there."""
    entry = dict(facts["entry"])
    for key in ("path", "argv0"):
        if key in entry and isinstance(entry[key], str):
            entry[key] = places.path(entry[key])
    if entry["kind"] == "value":
        entry["path"] = [places.path(folder) for folder in entry["path"] if places.path(folder) != folder]
    return {
        **facts,
        "entry": {**entry, "cwd": _known(entry["cwd"], places, cwd)},
        "cwd": _known(facts["cwd"], places, cwd),
        "sweep_dir": places.path(facts["sweep_dir"]),
        "search_path": [(provider, places.path(path)) for provider, path in facts["search_path"]],
        "frozen": {places.path(root): copy for root, copy in facts["frozen"].items()},
        "places": places.folders,
    }


def _known(folder: str, places: Places, otherwise: str) -> str:
    moved = places.path(folder)
    return otherwise if moved == folder else moved
