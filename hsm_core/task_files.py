"""What a task left behind, read with care: its result record and the end of its output.

Paths in outcomes may come from another machine, so none is followed out of the sweep directory.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsm_core.task import Outcome
from hsm_core.text import printable_lines

STDOUT, STDERR = "stdout.log", "stderr.log"

_RECORD_LIMIT = 16 * 1024 * 1024
_TAIL_LINES, _TAIL_BYTES = 50, 64 * 1024


def confined(directory: Path, path: str | None) -> Path | None:
    """The path (a relative one starts in `directory`) if it lies in `directory`, links followed; else None."""
    if not path or "\0" in path:
        return None
    try:
        full = (directory / path).resolve()
        return full if full.is_relative_to(directory.resolve()) else None
    except (OSError, RuntimeError):
        return None


def output_folder(directory: Path, outcome: Outcome) -> Path | None:
    """Where the attempt's output is; None when it is unknown or outside the sweep directory."""
    return confined(directory, outcome.output_dir)


def read_error(directory: Path, outcome: Outcome) -> Mapping[str, Any]:
    """The `error` of the outcome's result record: type, message, traceback.

    Empty when there is no record, it can't be read, or it tells of no error.
    """
    path = confined(directory, outcome.record)
    if path is None:
        return {}
    try:
        record = json.loads(_read_end(path, _RECORD_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    error = record.get("error") if isinstance(record, dict) else None
    return error if isinstance(error, dict) else {}


def traceback_text(directory: Path, outcome: Outcome) -> str:
    """The traceback of a failed outcome, escaped, without trailing line ends; empty when it left none."""
    text = read_error(directory, outcome).get("traceback")
    return printable_lines(text).rstrip("\n") if isinstance(text, str) else ""


def tail(path: Path) -> str:
    """The last 50 lines of a text file, at most its last 64 KB, escaped. Raises OSError.

    A line that was drawn over with carriage returns, as progress bars do, is shown as it looked last.
    """
    text = _read_end(path, _TAIL_BYTES).decode("utf-8", "backslashreplace")
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")[-_TAIL_LINES:])
    return printable_lines("\n".join(lines))


def _read_end(path: Path, limit: int) -> bytes:
    # A task may leave a pipe or a link under any name: neither is waited for nor followed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        file.seek(max(status.st_size - limit, 0))
        return file.read(limit)
