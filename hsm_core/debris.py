"""What killed processes leave half-written in hsm's own parts of a sweep directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hsm_core.crashpoint import crashpoint
from hsm_core.journal import Journal, replay
from hsm_core.owner import Owner, current
from hsm_core.remote.marks import end_processes
from hsm_core.reports import write_reports

PARTS = (".hsm", "logs", "reports", "errors", "failed_tasks")
"""the folders of a sweep directory that are hsm's"""
_SUFFIXES = (".tmp", ".part", ".new")
"""of files and folders that get their right name by rename once they are whole"""
_PASSED_OVER = ("snapshot", "control", "incoming")
"""beginnings of the names of folders with the app's own files, or with what other commands may be writing now"""


def half_written(directory: Path) -> Iterator[Path]:
    """Files and folders of hsm in a sweep's directory that never became whole: of use to nobody once nothing runs."""
    for part in PARTS:
        for here, folders, files in os.walk(directory / part):
            yield from (Path(here, name) for name in [*folders, *files] if name.endswith(_SUFFIXES))
            folders[:] = [
                name for name in folders if not name.startswith(_PASSED_OVER) and not name.endswith(_SUFFIXES)
            ]
    results = directory / ".hsm" / "results"
    # A worker writes its return value before the supervisor writes the record which names it.
    yield from (path for path in results.glob("*.pkl") if not path.with_suffix(".json").exists())


def remove_half_written(directory: Path) -> None:
    """Remove all of it. Only the sweep's owner may, and only while none of its processes runs. Raises OSError."""
    for path in list(half_written(directory)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish_closing(directory: Path, takeover: bool = False) -> None:
    """Do for a sweep without work left what its launcher was killed before: end processes, write reports, give it back.

    Nothing is done where the sweep was given back in order. Raises SweepBusy where its launcher may live and
    `takeover` is not set, JournalError, OSError.
    """
    hsm = directory / ".hsm"
    last = current(hsm)
    if last is None or last.released:
        return
    owner = Owner.acquire(hsm, takeover)
    try:
        end_processes(f"{directory}:", below=owner.epoch)
        crashpoint("processes_ended")
        path = hsm / "journal.jsonl"
        Journal.open(path, replay(path)).close()
        write_reports(directory)
        crashpoint("reports_written")
        remove_half_written(directory)
        crashpoint("tidied")
    finally:
        owner.release()
