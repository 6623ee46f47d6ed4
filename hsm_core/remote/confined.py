"""Names from elsewhere: each leads to something below the folder it belongs to, or is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence


def parts(name: str) -> tuple[str, ...]:
    """The components of a relative path that stays where it starts, links aside.

    Raises ValueError for every other: empty, absolute, with `..`, `.` or nothing between slashes, with a NUL.
    """
    found = tuple(name.split("/"))
    if "\0" in name or any(part in ("", ".", "..") for part in found):
        raise ValueError(f"{name[:200]!r} is no name of a file in the folder")
    return found


def stays_inside(target: str, depth: int) -> bool:
    """Whether a link to `target`, which stands `depth` folders below a folder, leads to something in that folder.

    `..` counts at its beginning only: there it leaves real folders. Behind a name it would leave a folder that another
    link may lead to, and which stands elsewhere than it seems.
    """
    found = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((i for i, part in enumerate(found) if part != ".."), len(found))
    return not target.startswith("/") and ups <= depth and ".." not in found[ups:]


def open_folder(top: int, path: Sequence[str]) -> int:
    """A descriptor of the folder at this path below the folder that `top` is open for; no link on the way is followed.

    Raises OSError.
    """
    here = os.dup(top)
    for part in path:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here
