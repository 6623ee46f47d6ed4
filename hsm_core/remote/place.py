"""Where a task may write: below its sweep's directory, and where no other task of the sweep writes.

Hydra's own launchers write wherever `hydra.sweep.subdir` leads. Here two tasks run at the same
time, and what is outside of the sweep's directory belongs to somebody else.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any


class OutputDirectoryError(Exception):
    """A task's output directory is not one that it may have."""


def output_dir(config: Any) -> str:
    """The absolute path of the directory that Hydra's `run_job` is about to make for a composed task."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config  # what `${hydra:..}` is resolved in
    try:
        parts = (str(OmegaConf.select(config, f"hydra.sweep.{part}")) for part in ("dir", "subdir"))
        return os.path.abspath(os.path.join(*parts))
    finally:
        instance.cfg = before


def problem(sweep: str, folder: str) -> str | None:
    """Why a task of the sweep in directory `sweep` may not write to `folder`, None if it may; links are followed."""
    if "\0" in folder:
        return "its output directory has a name with a NUL in it; see hydra.sweep.subdir"
    top, place = os.path.realpath(sweep), os.path.realpath(folder)
    if not place.startswith(os.path.join(top, "")) or place == top:
        leads = f"{folder}, which is {place}" if place != folder else folder
        return f"its output directory would be {leads}; it must be below {top}, see hydra.sweep.subdir"
    hsm = os.path.join(top, ".hsm")
    if place == hsm or place.startswith(os.path.join(hsm, "")):
        return f"its output directory would be {folder}, which is for hsm itself; see hydra.sweep.subdir"
    return None


def take(sweep: str, folder: str, task: str) -> None:
    """Take `folder` for the task of this name, for all its attempts.

    Raises OutputDirectoryError where it may not write there, or another task has it. The first one
    to come has it: a link named by the folder's path, which the file system makes once.
    """
    words = problem(sweep, folder)
    if words is not None:
        raise OutputDirectoryError(words)
    taken = os.path.join(sweep, ".hsm", "outputs")
    link = os.path.join(taken, hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32])
    os.makedirs(taken, mode=0o700, exist_ok=True)
    try:
        os.symlink(task, link)
    except FileExistsError:
        owner = os.readlink(link)
        if owner != task:
            raise OutputDirectoryError(
                f"its output directory {folder} is that of {owner} too; see hydra.sweep.subdir"
            ) from None
