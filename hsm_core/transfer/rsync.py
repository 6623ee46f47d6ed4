"""Moving trees of files by rsync over a connection that is there already: many directories in one go.

Works with rsync 3.1 (2013) and newer on both sides. What comes from a host goes into a folder that holds nothing else
(see `mirror`); there rsync writes links in a form that leads nowhere, so nothing is ever written through one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsm_core.exceptions import NoRoom, NoRsync, SourceError, Unavailable
from hsm_core.remote import confined
from hsm_core.remote.manifest import PARTIAL
from hsm_core.space import NO_SPACE, room_words, why_unwritable
from hsm_core.text import printable
from hsm_core.transfer import tunnel
from hsm_core.transfer.shell import Shell

READ_ONLY = "D0700,Fgo-rwx,Fa-w"
"""modes for `push`: files that share their content with those of earlier pushes"""
WRITABLE = "D0700,Fgo-rwx,Fu+rw"
"""modes for `push`: files that programs over there go on with"""
SHOWN = 20
"""problems that are told of one transfer"""

_OLDEST = (3, 1)
_NO_FOLDER = 66
"""exit status over there where the folder is not there (EX_NOINPUT of sysexits.h)"""
_STRANGE = frozenset({1, 2, 4, 5})
"""exit statuses of rsync that speak of options, versions or a file list which the other side does not agree to"""
_IN_PART = frozenset({23, 24})
_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|disk quota exceeded")


@dataclass(frozen=True)
class Moved:
    """What a transfer did."""

    complete: bool
    """whether all came as it was when it was listed; files that change or vanish meanwhile are normal"""
    problems: Sequence[str] = ()
    """what did not come and why, the first ones, printable"""
    received: int = 0
    """bytes that came over the connection"""


def pull(
    connection: Shell, remote: str, names: Sequence[str], into: Path, *, compress: bool = False, timeout: float = 60.0
) -> Moved:
    """Bring what stands below these names in the folder `remote` to the same names below `into`.

    Only what differs by size or time is brought; a file that was brought in part goes on from there. Names that are not
    there are passed over. Nothing at home is removed, and a file is replaced as a whole. Links come munged, devices,
    pipes and sockets don't, nor owners and special mode bits. `timeout`: seconds without a byte after which it ends.

    Raises Unavailable where the connection is lost or silent, NoRsync where SFTP has to do it, NoRoom where the disk at
    home is full, SourceError where it can't work.
    """
    with at_home(into), scratch(into / PARTIAL) as temporary:
        arguments = [
            *_shared(compress, timeout),
            # -1: times are compared to the nanosecond; two attempts may write the same file within a second.
            *("-E", "-O", "-S", "--modify-window=-1", "--munge-links", "--chmod=Du+rwx,Fu+rw"),
            *("--ignore-missing-args", f"--temp-dir={temporary.relative_to(into)}"),
            *(f"{tunnel.HOST}:.", os.path.join(into, "")),
        ]
        lead = f"CDPATH= cd -- {shlex.quote(remote)} || exit {_NO_FOLDER}"
        ended = tunnel.run(connection, lead, arguments, _listed(names))
    return _result(ended, connection, remote, f"{room_words(into)}. Make room")


def push(
    connection: Shell,
    local: Path,
    names: Sequence[str],
    remote: str,
    *,
    chmod: str = WRITABLE,
    link_dest: str | None = None,
    compress: bool = False,
    timeout: float = 60.0,
) -> Moved:
    """Bring what stands below these names in the folder `local` to the same names below `remote`, which is made.

    As `pull`, but links and modes stay as they are, and `chmod` (as for rsync) is applied to them. Files that are the
    same in the folder `link_dest`, relative to `remote`, become hard links to those. Raises as `pull`; NoRoom where
    there is no room over there.
    """
    arguments = [*_shared(compress, timeout), "-p", f"--chmod={chmod}"]
    if link_dest is not None:
        arguments.append(f"--link-dest={link_dest}")
    place = shlex.quote(remote)
    lead = f"umask 077\nmkdir -p -- {place} && CDPATH= cd -- {place} || exit {_NO_FOLDER}"
    ended = tunnel.run(connection, lead, [*arguments, os.path.join(local, ""), f"{tunnel.HOST}:."], _listed(names))
    return _result(ended, connection, remote, f"{printable(remote)} on {connection.address}. Make room there")


@contextlib.contextmanager
def at_home(into: Path) -> Iterator[None]:
    """Make the folder; what can't be made or removed in it is told by NoRoom and SourceError."""
    try:
        into.mkdir(parents=True, mode=0o700, exist_ok=True)
        yield
    except OSError as e:
        error = NoRoom if e.errno in NO_SPACE else SourceError
        raise error(why_unwritable(e, into)) from e


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder of this transfer's own, for files on their way; those of killed launchers are removed."""
    ours = f"{os.getpid()}-"
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.iterdir():
        # Only one launcher has the sweep; and what waits here in part has other names.
        if left.is_dir() and not left.name.startswith(ours):
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=ours) as made:
        yield Path(made)


def _shared(compress: bool, timeout: float) -> list[str]:
    reason = unusable()
    if reason is not None:
        raise NoRsync(reason)
    silence = max(round(timeout), 1)
    options = ["-s", "-rlt", "--files-from=-", "--from0", f"--timeout={silence}"]
    options += [f"--partial-dir={PARTIAL}", f"--exclude={PARTIAL}"]
    return [*options, "-z"] if compress else options


@functools.lru_cache(maxsize=1)
def unusable() -> str | None:
    """Why rsync at home can't be used, None if it can."""
    try:
        said = subprocess.run(["rsync", "--version"], capture_output=True, check=False).stdout
    except FileNotFoundError:
        return "rsync is not installed here"
    return unfit(said.decode("utf-8", "replace"), "here")


def unfit(said: str, where: str) -> str | None:
    """Why the rsync that says so of its version (`rsync --version`) can't be used, None if it can."""
    # openrsync, as on macOS, says "rsync version 2.6.9 compatible"
    found = re.match(r"rsync +version v?(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        first = said.partition("\n")[0]
        return f"rsync {where} is older than {'.'.join(map(str, _OLDEST))}: {printable(first, 80)}"
    return None


def _listed(names: Sequence[str]) -> bytes:
    # "./": rsync takes a line that begins with # or ; for a comment.
    return b"".join(os.fsencode(f"./{'/'.join(confined.parts(name))}\0") for name in names)


def _result(ended: tunnel.Ended, connection: Shell, remote: str, no_room: str) -> Moved:
    """What an rsync that ended so did; raises as `pull`."""
    problems = _problems(ended.words)
    why = f": {problems[-1]}" if problems else ""
    where = f"{printable(remote)} on {connection.address}"
    if ended.there in (126, 127):
        raise NoRsync(f"rsync is not installed on {connection.address}{why}")
    if ended.there == _NO_FOLDER:
        raise SourceError(f"{where} can't be used{why}")
    if ended.code != 0 and _NO_ROOM.search(ended.words):
        raise NoRoom(f"The disk is full: {no_room}")
    if ended.code == 0 or ended.code in _IN_PART:
        return Moved(ended.code == 0, problems[:SHOWN], ended.received)
    if ended.code in _STRANGE or ended.there in _STRANGE:
        raise NoRsync(f"rsync here and on {connection.address} do not get on with each other{why}")
    if ended.code in (3, 11):
        raise SourceError(f"rsync with {where} failed{why}")
    raise Unavailable(f"the transfer with {where} was cut off (rsync: {ended.code}){why}")


def _problems(words: str) -> list[str]:
    """What rsync said of single files, without its summing up."""
    lines = (line.strip() for line in words.splitlines())
    return [printable(line, 500) for line in lines if line and not line.startswith(("rsync error:", "rsync warning:"))]
