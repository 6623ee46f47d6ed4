"""The files of a project: what git knows of, or what stands in its folder, without what is none of its code.

Not of a project are the directories of sweeps, what Hydra and Python leave, and installed packages.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PASSED_OVER = frozenset({".hsm", ".hydra", "__pycache__", "node_modules", "site-packages", "multirun", "outputs"})
"""names of folders that hold no code, unless git was told to keep it"""

_STAGED = re.compile(r"(\d{6}) [0-9a-f]+ \d\t", re.ASCII)
_WORK_TREE = "160000"
"""git's mode of a folder that is a work tree of its own: a submodule"""


@dataclass
class Listed:
    """Names of files and links, relative to the project, without those in sweeps and environments."""

    tracked: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)
    """those that git does not ignore"""


def listed(project: Path) -> Listed | None:
    """What git knows of in a folder, with its submodules and other work trees in it; None where it knows of nothing.

    A tracked name may be gone.
    """
    found = Listed()
    if not _list(project, "", found) or not (found.tracked or found.untracked):
        return None
    known: dict[str, bool] = {}
    for names in (found.tracked, found.untracked):
        names[:] = [name for name in dict.fromkeys(names) if not _is_foreign(project, os.path.dirname(name), known)]
    return found


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, with paths relative to the folder, without hidden folders and what is none of a project's code."""
    for here, folders, files in os.walk(folder):
        if here != str(folder) and is_foreign(here):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in PASSED_OVER and not name.startswith(".")]
        yield Path(here).relative_to(folder), folders, files


def is_foreign(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is the directory of a sweep, or an environment of Python's or conda's."""
    here = os.fspath(folder)
    return (
        os.path.isdir(os.path.join(here, ".hsm"))
        or os.path.exists(os.path.join(here, "pyvenv.cfg"))
        or os.path.isdir(os.path.join(here, "conda-meta"))
    )


def git(folder: Path, *args: str) -> str | None:
    """What git answers; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def _list(project: Path, below: str, found: Listed) -> bool:
    said = git(project / below, "ls-files", "--stage", "--cached", "--others", "--exclude-standard", "-z")
    if said is None:
        return False
    for line in said.split("\0")[:-1]:
        staged = _STAGED.match(line)
        name = below + (line[staged.end() :] if staged else line)
        if staged and staged[1] == _WORK_TREE:
            _list(project, f"{name}/", found)
        elif name.endswith("/"):  # a repository that the outer one does not track
            _list(project, name, found)
        else:
            (found.tracked if staged else found.untracked).append(name)
    return True


def _is_foreign(project: Path, folder: str, known: dict[str, bool]) -> bool:
    """Whether a folder of the project is in a foreign one. The project's own folder may be one, and is code."""
    if folder not in known:
        known[folder] = bool(folder) and (
            is_foreign(project / folder) or _is_foreign(project, os.path.dirname(folder), known)
        )
    return known[folder]
