"""The folder of a batch, on the disk that a cluster's nodes share: attempts that go to the scheduler as one job array.

It is named by the batch's token. `batch.json`, which says which attempt is which element, is there before anything is
submitted; `job` has the scheduler's id once that is known. Elements leave marks, see `hsm_core.remote.element`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from hsm_core.remote import starts
from hsm_core.remote.record import put, read

WHAT, JOB = "batch.json", "job"
MARKS = (".started", ".ended")
"""what the names of those end with that a launcher hears of"""
SAID = 4096
"""bytes at the end of a job's output that are looked at"""


def write(folder: str, batch: Mapping[str, Any]) -> None:
    """Make the folder of a batch. Raises OSError; then nothing is left of it."""
    os.makedirs(folder, mode=0o700)
    try:
        put(os.path.join(folder, WHAT), batch)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def submitted(folder: str, job: str) -> None:
    """Keep the scheduler's id. Raises OSError."""
    put(os.path.join(folder, JOB), {"id": job})


def void(folder: str) -> None:
    """Let no element run that may still come; returns once none can begin any more. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, WHAT))


def remove(folder: str) -> None:
    """Remove the folder; what can't be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def find(top: str, records: str) -> list[dict[str, Any]]:
    """All batches below `top` that were written whole: their folders, the ids of their attempts, and of their jobs.

    `resources`: what they ask for; `settled`: whether all of their attempts have left records. Raises OSError.
    """
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(top)):
            folder = os.path.join(top, name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
                what = _json(folder, WHAT)
                attempts = [spec["id"] for spec in what["attempts"]]
                settled = all(os.path.exists(os.path.join(records, f"{attempt}.json")) for attempt in attempts)
                told = {"attempts": attempts, "resources": what["resources"], "job": _job(folder), "settled": settled}
                found.append({"folder": folder, **told})
    return found


def _json(folder: str, name: str) -> dict[str, Any]:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _job(folder: str) -> str | None:
    try:
        return str(_json(folder, JOB)["id"])
    except FileNotFoundError:
        return None


def news(known: Mapping[str, int]) -> dict[str, list[str]]:
    """The marks in folders that have another number of them than is known, by folder. Raises OSError."""
    found = {}
    for folder, count in known.items():
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in os.listdir(folder) if name.endswith(MARKS)]
            if len(names) != count:
                found[folder] = names
    return found


def begun(path: str) -> dict[str, Any] | None:
    """What a mark says of the beginning of an attempt; None where it is not to be read."""
    try:
        found = read(path)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def call_off(marks: str) -> None:
    """Have all starts of an element end that still live somewhere; what can't be told so can't be reached.

    `marks`: the path of its marks, up to the number of the start.
    """
    for mark in _begun(marks):
        with contextlib.suppress(OSError):
            starts.call_off(mark)


def _begun(marks: str) -> list[str]:
    return glob.glob(f"{glob.escape(marks)}.*.begun")


def left(record: str, marks: str, log: str | None) -> dict[str, Any]:
    """What an element has left: its `record`, or what is `wrong` with that; whether it has `begun`, by its marks.

    Of one that does not say why it ended also the end of its job's output (`said`), if there is one. Raises OSError.
    """
    found: dict[str, Any] = {"record": None, "wrong": "", "begun": False, "said": None}
    found["begun"] = os.path.exists(f"{marks}.0.begun") or bool(_begun(marks))
    try:
        found["record"] = read(record)
    except FileNotFoundError:
        pass
    except ValueError as e:
        found["wrong"] = str(e)
    told = found["record"]
    if log is not None and (told is None or (isinstance(told, dict) and told.get("cause") == "cancelled")):
        found["said"] = _end_of(log)
    return found


def _end_of(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - SAID))
            return file.read().decode(errors="replace")
    except OSError:
        return None
