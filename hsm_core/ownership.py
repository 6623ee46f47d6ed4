"""Whose files these are: what another user could use to make us run something is refused.

Root may do anything anyway, and is trusted. Members of the group that a directory is shared
with are trusted as far as they are with the directory: not with hsm's own files in it.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

from hsm_core.exceptions import SweepError
from hsm_core.text import printable


def refuse_open_directory(directory: Path) -> None:
    """Raise SweepError where anyone may put files of theirs in place of those in a sweep's directory.

    A sticky bit keeps them from it, as in /tmp; a file system without permissions has no say.
    """
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and _keeps_modes(directory):
        raise SweepError(
            f"{printable(str(directory))} may be written by everyone: others could have tasks run what they like. "
            f"Take that right away (chmod o-w), or name another hydra.sweep.dir"
        )


def refuse_foreign_sweep(directory: Path) -> None:
    """Raise SweepError where the sweep in a directory was made, or may be changed, by somebody else.

    Its journal says which command goes on with it, its payload is unpickled: either could be anything.
    """
    hsm = directory / ".hsm"
    found = hsm.lstat()
    name = printable(str(hsm))
    if not stat.S_ISDIR(found.st_mode):
        raise SweepError(f"{name} is no directory: it was not made by hsm. Look at it, and remove it")
    if found.st_uid != os.geteuid():
        raise SweepError(
            f"{name} belongs to {user(found.st_uid)}, you are {user(os.geteuid())}: going on with it would run "
            f"what it says in your name. Let {user(found.st_uid)} do that, or name another hydra.sweep.dir"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and _keeps_modes(directory):
        raise SweepError(
            f"others may write in {name}: going on with it would run what they put there. "
            f"If you trust what is in it: chmod go-w {name}"
        )


def foreign_file(path: Path, app_dir: Path | None) -> str | None:
    """Why a settings file that was found, not named, is not to be trusted; None where it is.

    It may be of whoever the app is of: that one's code is about to run anyway. Raises OSError.
    """
    found = path.stat()
    trusted = {os.geteuid(), 0, *([app_dir.stat().st_uid] if app_dir is not None and app_dir.exists() else [])}
    if found.st_uid not in trusted:
        return f"belongs to {user(found.st_uid)}, and could make you run anything"
    if found.st_mode & stat.S_IWOTH:
        return "may be written by everyone, and could make you run anything"
    return None


def user(uid: int) -> str:
    """The name of a user, or the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _keeps_modes(directory: Path) -> bool:
    """Whether the file system keeps permissions; those of Windows that are mounted here don't."""
    made = tempfile.mkdtemp(prefix=".hsm-", dir=directory)
    try:
        return stat.S_IMODE(os.stat(made).st_mode) == stat.S_IRWXU
    finally:
        os.rmdir(made)
