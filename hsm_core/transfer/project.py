"""The project on a host: which files of it travel, and putting them there once.

A host has each version of a project in a folder of its own, named by a digest of what was listed. Files that did not
change since the version before are hard links to that one's, so all are read-only there.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsm_core import work_tree
from hsm_core.config.file import FILE_NAME
from hsm_core.exceptions import SnapshotError, SourceError
from hsm_core.remote import confined
from hsm_core.text import plural, printable, size
from hsm_core.transfer import rsync
from hsm_core.transfer.shell import Shell

IGNORE_FILE = ".hsmignore"
"""at the top of a project: what does not travel, in the syntax of .gitignore"""
FILE_LIMIT = 100_000
SIZE_LIMIT = 2 << 30
"""bytes"""
KEPT = 90
"""days that a version stays there without being used"""
WALK_LIMIT = 300_000
"""files after which a project is too large without being looked at further"""

_SHOWN = 5
_ANSWER = 1 << 16
"""bytes that are read of an answer"""
_PATIENCE = 30.0
"""seconds that the end of an answer may take"""
_VERSION = re.compile(r"[0-9a-f]{32}", re.ASCII)


Push = Callable[..., rsync.Moved]
"""`rsync.push`, or another that does the same"""


@dataclass(frozen=True)
class ProjectFile:
    """A file or a link of the project."""

    name: str
    """relative to the project"""
    size: int
    mtime_ns: int
    executable: bool
    target: str | None = None
    """of a link"""


@dataclass(frozen=True)
class Listing:
    """What travels of a project."""

    files: Sequence[ProjectFile]
    """sorted by name"""
    left_out: Sequence[str]
    """what can't travel and why, printable"""


def files(project: Path, hidden: Collection[Path] = ()) -> Listing:
    """What travels: files that git tracks and those it does not ignore, or all in the folder where there is no git.

    Without what `.hsmignore` names, sweeps, environments, results of Hydra that are not tracked, and hsm's own
    settings, which may hold secrets: files named hsm_config.yaml and the `hidden` ones. Links stay links where they
    lead to something in the project. Raises SnapshotError where it is too much.
    """
    ignored = _Ignored(project / IGNORE_FILE)
    found: list[ProjectFile] = []
    left_out: list[str] = []
    weights: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for name in _names(project, ignored):
        path = project / name
        if path.name == FILE_NAME or path in hidden:
            continue
        try:
            status = path.lstat()
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            continue  # tracked, but gone
        if target is not None and not confined.stays_inside(target, name.count("/")):
            left_out.append(f"{printable(name)} is a link out of the project, to {printable(target, 200)}")
        elif target is None and not stat.S_ISREG(status.st_mode):
            left_out.append(f"{printable(name)} is neither file nor link")
        else:
            executable = bool(status.st_mode & stat.S_IXUSR)
            found.append(ProjectFile(name, status.st_size, status.st_mtime_ns, executable, target))
            top = name.partition("/")[0]
            weights[top] += status.st_size
            counts[top] += 1
        if len(found) > WALK_LIMIT:
            break
    if len(found) > FILE_LIMIT or weights.total() > SIZE_LIMIT:
        raise SnapshotError(_too_much(project, weights, counts))
    return Listing(sorted(found, key=lambda file: file.name), left_out)


def digest(files: Iterable[ProjectFile]) -> str:
    """A name for this version of the project: another one where a name, size, time, mode or link is another."""
    found = hashlib.sha256()
    for file in files:
        facts = (file.name, str(file.size), str(file.mtime_ns), str(file.executable), file.target or "")
        found.update(os.fsencode("\0".join(facts) + "\0\0"))
    return found.hexdigest()[:32]


def send_project(
    connection: Shell,
    base: str,
    project: Path,
    files: Sequence[ProjectFile],
    digest: str,
    *,
    compress: bool = False,
    timeout: float = 60.0,
    push: Push = rsync.push,
) -> str:
    """Have this version of the project on the host, and return its folder there, which is below `base`.

    A version that is there is whole, and is not sent again; of another one only what differs from the version used last
    is sent. Raises Unavailable, NoRsync, NoRoom and SourceError as `push` does, SnapshotError for a file that can't be
    read.
    """
    place = os.path.dirname(place_of(base, project, digest))
    last = _look(connection, place, digest)
    if last != digest:
        link_dest = None if last is None else f"../{last}"
        staged, names = f"{place}/{digest}.part", [file.name for file in files]
        try:
            moved = push(
                connection,
                project,
                names,
                staged,
                chmod=rsync.READ_ONLY,
                link_dest=link_dest,
                compress=compress,
                timeout=timeout,
            )
        except SourceError:
            # Another launcher that sent the same has renamed the folder under our hands.
            if _look(connection, place, digest) != digest:
                raise
        else:
            unread = [problem for problem in moved.problems if "vanished" not in problem]
            # Whoever sends the same may have finished meanwhile: then the folders that ours leads through are gone.
            if unread and _look(connection, place, digest) != digest:
                raise SnapshotError(f"{project} can't be sent to {connection.address} whole: {unread[0]}")
            # Another launcher may also come first between the look and the mv.
            finish = f"mv {digest}.part {digest} || [ -d {digest} ]"
            finish = f"if [ -d {digest} ]; then rm -rf {digest}.part; else {finish}; fi"
            _ask(connection, f"CDPATH= cd -- {shlex.quote(place)} && {finish}")
    return place_of(base, project, digest)


def place_of(base: str, project: Path, digest: str) -> str:
    """The folder below `base` over there that `send_project` puts this version of the project into."""
    return f"{base}/code/{_key(project)}/{digest}"


def _key(project: Path) -> str:
    """A name for the project that no other one has, of whichever machine that uses the same account there."""
    place = os.fsencode(f"{platform.node()}\0{project}")
    return f"{re.sub('[^A-Za-z0-9_-]', '_', project.name)[:40]}-{hashlib.sha256(place).hexdigest()[:12]}"


def _look(connection: Shell, place: str, digest: str) -> str | None:
    """The version that was used last, which is the wanted one where that is there; None where there is none."""
    quoted = shlex.quote(place)
    there = _ask(
        connection,
        f"umask 077\nmkdir -p -- {quoted} && CDPATH= cd -- {quoted} || exit 1\n"
        # What a launcher has not finished for a week was given up by it; what none has used for long is not missed.
        f"if [ -d {digest} ]; then touch {digest}\n"
        f"else find . ! -name . -prune \\( -name '*.part' -mtime +7 -o -mtime +{KEPT} \\) -exec rm -rf {{}} +\nfi\n"
        "ls -t",
    )
    versions = [name for name in there.split("\n") if _VERSION.fullmatch(name)]
    return digest if digest in versions else next(iter(versions), None)


def _ask(connection: Shell, script: str) -> str:
    """What a script there prints. Raises Unavailable, SourceError where it fails."""
    program = connection.run(script)
    try:
        program.stdin.close()
        said = bytearray()
        while len(said) < _ANSWER and (piece := program.stdout.read(_ANSWER)):
            said += piece
        status = program.wait(_PATIENCE)
        if status != 0:
            why = printable(program.errors().strip(), 500) or f"exit status {status}"
            raise SourceError(f"the project can't be put on {connection.address}: {why}")
        return said.decode("ascii", "replace")
    finally:
        program.close()


def _names(project: Path, ignored: _Ignored) -> Iterator[str]:
    known = work_tree.listed(project)
    if known is None:
        for here, folders, names in work_tree.walk(project):
            links = [name for name in folders if (project / here / name).is_symlink()]
            yield from (name for name in (str(here / name) for name in [*names, *links]) if not ignored(name))
            folders[:] = [name for name in folders if not ignored(f"{here / name}/")]
        return
    yield from (name for name in known.tracked if not ignored(name))
    for name in known.untracked:
        if not work_tree.PASSED_OVER.intersection(name.split("/")) and not ignored(name):
            yield name


class _Ignored:
    """Whether `.hsmignore` names a file or a folder it is in; names of folders end with a slash."""

    def __init__(self, path: Path) -> None:
        self._matches = _matcher(path)
        self._known = {"": False}

    def __call__(self, name: str) -> bool:
        if self._matches is None:
            return False
        if name not in self._known:
            parent = name.rstrip("/").rpartition("/")[0]
            found = self(f"{parent}/" if parent else "") or self._matches(name)
            if not name.endswith("/"):
                return found
            self._known[name] = found
        return self._known[name]


def _matcher(path: Path) -> Callable[[str], bool] | None:
    """What the lines of an ignore file match; None where there is none. Raises SnapshotError."""
    try:
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise SnapshotError(f"{path} can't be read: {e.strerror}") from e
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines).match_file
    except ValueError as e:
        raise SnapshotError(f"{path}: {e}") from e


def _too_much(project: Path, weights: Counter[str], counts: Counter[str]) -> str:
    heaviest = sorted(weights, key=lambda top: weights[top] / SIZE_LIMIT + counts[top] / FILE_LIMIT, reverse=True)
    shown = (
        f"{printable(top, 100)} ({size(weights[top])} in {plural(counts[top], 'file')})" for top in heaviest[:_SHOWN]
    )
    more = "more than " if counts.total() > WALK_LIMIT else ""
    return (
        f"{project} is too much to be sent to a host: {more}{plural(counts.total(), 'file')}, {size(weights.total())}, "
        f"where {FILE_LIMIT:,} and {size(SIZE_LIMIT)} are allowed. The largest: {', '.join(shown)}. "
        f"Put data and what else the app does not need there into {project / IGNORE_FILE}, as into a .gitignore."
    )
