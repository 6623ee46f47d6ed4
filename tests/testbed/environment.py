"""The Python environment of a far host: the app's own dependencies, and nothing of hsm."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def needed(name: str, found: set[str] | None = None) -> set[str]:
    """A package and all that it needs, as far as that is installed here."""
    found = set() if found is None else found
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # for other systems or Pythons
        return found
    found.add(name)
    for requirement in requirements:
        wanted = re.match(r"[\w.-]+", requirement)
        if wanted is not None and wanted[0] not in found and "extra ==" not in requirement:
            needed(wanted[0], found)
    return found


def make_environment(folder: Path, *more: str) -> Path:
    """An environment that every user may read, with copies of installed packages; returns its interpreter."""
    folder.mkdir()
    subprocess.run([_interpreter(folder), "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    here, there = Path(sysconfig.get_path("purelib")), Path(found.stdout.strip())
    for name in sorted(set().union(*map(needed, ("hydra-core", *more)))):
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate())).resolve()
            if source.is_relative_to(here) and source.suffix != ".pyc":
                target = there / source.relative_to(here)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    # As pip does: nobody but us may write there, and what is not compiled would be at each start of a process.
    subprocess.run([str(python), "-m", "compileall", "-q", str(there)], check=False, stdout=subprocess.DEVNULL)
    subprocess.run(["chmod", "-R", "a+rX", str(folder / "env")], check=True)
    return python


def _interpreter(folder: Path) -> str:
    """An interpreter that every user may run; ours may be in somebody's home."""
    ours = Path(sys.base_prefix).resolve()
    if all(place.stat().st_mode & 0o001 for place in (ours, *ours.parents)):
        return os.path.join(ours, "bin", "python3")
    shutil.copytree(ours, folder / "python", symlinks=True, copy_function=_link, ignore=_ignored)
    return str(folder / "python" / "bin" / "python3")


def _ignored(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("site-packages", "test", "share", "include")]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # of another file system
        shutil.copy2(source, target, follow_symlinks=False)
