"""Freezing what tasks will read: the app's Python files and its configuration files.

The copies stand in the sweep directory; `hsm_core.remote.frozen` reads them on the compute
side. Staged under another name, then renamed: a snapshot that is there is complete. It says
itself what it holds, so that later launchers can tell whether the code changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hsm_core import work_tree
from hsm_core.config.file import FILE_NAME
from hsm_core.exceptions import SnapshotError

SUFFIXES = (".py", ".yaml", ".yml")
FILE_LIMIT = 20_000
"""files a snapshot may hold"""
DATA_FOLDER = 5_000
"""entries of one folder above which it is taken for data and not looked into"""
WALK_LIMIT = 200_000
"""directory entries looked at in a folder that is not under git"""

MANIFEST = "manifest.json"
"""in each snapshot: its roots, the hash of each of its files, and git's word on the project"""


@dataclass(frozen=True)
class Snapshot:
    folder: Path
    names: Mapping[str, str]
    """frozen folder or script -> name of its copy in `folder`"""
    files: Mapping[str, str]
    """name in `folder` -> SHA-256 of the file's content, in hex"""
    commit: str | None = None
    dirty: bool | None = None

    @property
    def roots(self) -> dict[str, str]:
        """Frozen folder or script -> its copy."""
        return {root: str(self.folder / name) for root, name in self.names.items()}


def take(
    app_dir: Path | None,
    config_dirs: Iterable[Path],
    target: Path,
    script: Path | None = None,
    hidden: Collection[Path] = (),
) -> Snapshot:
    """Freeze the project around `app_dir`, and outside of it the configuration folders and the script.

    The project is the git work tree that holds `app_dir`, else that folder. Folders of
    installed packages are left alone, and so are hsm's own settings, which may hold secrets: files
    named hsm_config.yaml and the `hidden` ones. Afterwards `target` holds all copies. Raises
    SnapshotError when there are too many files or they can't be copied.
    """
    staging = target.with_name(target.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    roots: dict[Path, str] = {}
    files: dict[str, str] = {}
    commit, dirty = None, None

    def freeze(root: Path, of: Path, names: Iterable[Path], name: str) -> None:
        roots[root] = name if root == of else f"{name}/{root.name}"
        copied = _copy(of, names, staging / name, hidden)
        files.update((f"{name}/{file.as_posix()}", digest) for file, digest in copied.items())

    if app_dir is not None and not _installed(app_dir):
        top = work_tree.git(app_dir, "rev-parse", "--show-toplevel")
        project = Path(top.strip()) if top else app_dir
        if top:
            commit = (work_tree.git(project, "rev-parse", "HEAD") or "").strip() or None
            dirty = bool(work_tree.git(project, "status", "--porcelain", "--untracked-files=no"))
        freeze(project, project, _project_files(project, bool(top)), "project")
    for number, folder in enumerate(config_dirs):
        if folder.is_dir() and not _installed(folder) and not any(_holds(staging, roots, r, folder) for r in roots):
            freeze(folder, folder, _walk(folder), f"conf-{number}")
    if script is not None and not any(_holds(staging, roots, root, script) for root in roots):
        freeze(script, script.parent, [Path(script.name)], "script")
    taken = Snapshot(target, {str(root): name for root, name in roots.items()}, files, commit, dirty)
    facts = {"names": taken.names, "files": files, "commit": commit, "dirty": dirty}
    (staging / MANIFEST).write_text(json.dumps(facts, indent=1), encoding="ascii")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)
    return taken


def read(folder: Path) -> Snapshot | None:
    """The snapshot in a folder, as it was taken; None where there is none that is complete."""
    try:
        facts = json.loads((folder / MANIFEST).read_text("ascii"))
        return Snapshot(folder, facts["names"], facts["files"], facts["commit"], facts["dirty"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damaged(snapshot: Snapshot) -> list[str]:
    """Names of the snapshot's files that are gone or not what was frozen, sorted."""
    found = []
    for name, digest in snapshot.files.items():
        try:
            content = (snapshot.folder / name).read_bytes()
        except OSError:
            found.append(name)
            continue
        if hashlib.sha256(content).hexdigest() != digest:
            found.append(name)
    return sorted(found)


def _holds(staging: Path, roots: Mapping[Path, str], root: Path, path: Path) -> bool:
    return path.is_relative_to(root) and (staging / roots[root] / path.relative_to(root)).exists()


def _installed(folder: Path) -> bool:
    """Whether a folder belongs to installed packages or to Python itself."""
    return any(folder.is_relative_to(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))


def _project_files(project: Path, git: bool) -> Iterator[Path]:
    known = work_tree.listed(project) if git else None
    if known is None:
        yield from _walk(project)
        return
    for name in known.tracked + known.untracked:
        path = Path(name)
        if (
            name.endswith(SUFFIXES)
            and not work_tree.PASSED_OVER.intersection(path.parts)
            and (project / path).is_file()
        ):
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    seen = 0
    for here, folders, files in work_tree.walk(folder):
        if len(folders) + len(files) > DATA_FOLDER:  # data: nobody has so many modules in one folder
            folders.clear()
            continue
        seen += len(folders) + len(files)
        if seen > WALK_LIMIT:
            raise SnapshotError(
                f"{folder} holds more than {WALK_LIMIT} files and folders, too many to freeze the app's code from. "
                "Put the app into a folder of its own, or under git."
            )
        yield from (here / f for f in files if f.endswith(SUFFIXES))


def _copy(root: Path, files: Iterable[Path], target: Path, hidden: Collection[Path]) -> dict[Path, str]:
    """Copy these files of a folder, for nobody else to read; returns the hash of each copy."""
    target.mkdir(mode=0o700)
    made, copied = {target}, {}
    for count, name in enumerate(files):
        if count >= FILE_LIMIT:
            raise SnapshotError(
                f"{root} holds more than {FILE_LIMIT} Python and YAML files, too many to freeze. "
                "Let .gitignore name those that are no part of the app."
            )
        if name.name == FILE_NAME or root / name in hidden:
            continue
        copy = target / name
        if copy.parent not in made:
            copy.parent.mkdir(parents=True, exist_ok=True)
            made.add(copy.parent)
        try:
            shutil.copy2(root / name, copy)
            copy.chmod(0o600)
            copied[name] = hashlib.sha256(copy.read_bytes()).hexdigest()
        except OSError as e:
            raise SnapshotError(f"{root / name} can't be frozen: {e.strerror}") from e
    return copied
