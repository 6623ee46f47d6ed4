"""A file that readers see whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from hsm_core.crashpoint import crashpoint


def write_whole(path: Path, text: str) -> None:
    """Put the text in place of whatever the file held, by rename; makes its folder. Raises OSError.

    What UTF-8 can't hold (halves of surrogate pairs, from bytes that were no text) is written as escapes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
        crashpoint("half_file_written")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
