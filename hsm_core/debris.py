"""What killed processes leave half-written in hsm's own parts of a sweep directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PARTS = (".hsm", "logs", "reports", "errors", "failed_tasks")
"""the folders of a sweep directory that are hsm's"""
_SUFFIXES = (".tmp", ".part", ".new")
"""of files and folders that get their right name by rename once they are whole"""
_PASSED_OVER = frozenset({"snapshot", "control"})
"""folders with the app's own files, and with what other commands may be writing now"""


def half_written(directory: Path) -> Iterator[Path]:
    """Files and folders of hsm in a sweep's directory that never became whole: of use to nobody once nothing runs."""
    for part in PARTS:
        for here, folders, files in os.walk(directory / part):
            yield from (Path(here, name) for name in [*folders, *files] if name.endswith(_SUFFIXES))
            folders[:] = [name for name in folders if name not in _PASSED_OVER and not name.endswith(_SUFFIXES)]
    results = directory / ".hsm" / "results"
    # A worker writes its return value before the supervisor writes the record which names it.
    yield from (path for path in results.glob("*.pkl") if not path.with_suffix(".json").exists())
