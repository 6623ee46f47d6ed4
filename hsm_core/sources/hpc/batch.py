"""A batch: attempts that go to the scheduler as one job array, and its folder on the shared disk.

The folder is below `.hsm/hpc/<source>` of the sweep and is named by the batch's token. It is written before anything is
submitted: `batch.json` says which attempt is which element, and the token stands in the name of the job, so that a
launcher that comes later finds the job whatever happened to this one. `job` has the scheduler's id once that is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsm_core.remote.record import put
from hsm_core.sources.hpc.resources import Resources, plain, restored

PREFIX = "hsm-"
"""what tokens begin with"""
_WHAT, _JOB = "batch.json", "job"


@dataclass
class Batch:
    folder: Path
    attempts: Sequence[str]
    """their ids, by the number of the element"""
    resources: Resources
    """what each of them asks for"""
    job: str | None = None
    """the scheduler's id of the array; None: not known to be submitted"""

    @property
    def token(self) -> str:
        return self.folder.name

    def submitted(self, job: str) -> None:
        """Keep the scheduler's id on disk. Raises OSError."""
        self.job = job
        put(str(self.folder / _JOB), {"id": job})

    def void(self) -> None:
        """Let no element run that may still come; returns once none can begin any more. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / _WHAT)

    def remove(self) -> None:
        """Remove the folder; what can't be removed stays."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write(top: Path, specs: Sequence[Mapping[str, Any]], shared: Mapping[str, Any], resources: Resources) -> Batch:
    """Make a batch of attempts, in a new folder below `top`; `shared` is what all their elements have to know.

    Raises OSError; then nothing is left of it.
    """
    folder = top / f"{PREFIX}{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700, parents=True)
    try:
        put(str(folder / _WHAT), {**shared, "resources": plain(resources), "attempts": specs})
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Batch(folder, [spec["id"] for spec in specs], resources)


def find(top: Path) -> list[Batch]:
    """All batches below `top` that were written whole."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(top.iterdir()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                what = _read(folder / _WHAT)
                attempts = [spec["id"] for spec in what["attempts"]]
                found.append(Batch(folder, attempts, restored(what["resources"]), _job(folder)))
    return found


def _read(path: Path) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        read: dict[str, Any] = json.load(file)
    return read


def _job(folder: Path) -> str | None:
    try:
        return str(_read(folder / _JOB)["id"])
    except FileNotFoundError:
        return None


def has_begun(batch: Batch, attempt: str) -> bool:
    """Whether an element has come so far as to run its attempt."""
    return (batch.folder / f"{attempt}.begun").exists()


def news(batch: Batch, known: set[str]) -> list[str]:
    """The names of files that elements have left in the folder, but for those that are known."""
    with contextlib.suppress(FileNotFoundError):
        return [
            name for name in os.listdir(batch.folder) if name.endswith((".started", ".ended")) and name not in known
        ]
    return []
