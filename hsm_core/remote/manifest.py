"""What an attempt left: names, sizes and hashes of the files in its output directory, to hold a copy of it against.

Written on the compute side once nothing of the attempt runs any more, read at home, where it is data from elsewhere.
JSON lines: one that names the format, one for each file and link, one that says how many these were.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from hsm_core.remote import confined, record

FORMAT = 1
HASHED = 1 << 20
"""bytes up to which a file's content is hashed; of larger ones the size is compared"""
LIMIT = 64 << 20
"""bytes a manifest may have, enough for half a million files"""
PARTIAL = ".hsm-partial"
"""in any folder the name of what is there in part only: it does not count, and does not travel"""
SHOWN = 100
"""differences that are told of"""

_LINE = 1 << 16
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 18


def write(folder: str, path: str) -> None:
    """Write the manifest of a folder to `path`: whole and on disk, or not at all.

    What can't be read, what vanishes meanwhile, links that lead out of the folder and what is neither file nor link are
    left out. What is more than `LIMIT` bytes is cut off, which the last line says. Raises OSError where it can't be
    written.
    """
    with record.whole(path) as file:
        written = file.write(_line({"manifest": FORMAT}))
        count, whole = 0, True
        for entry in _walked(folder):
            line = _line(entry)
            if written + len(line) > LIMIT - _LINE:
                whole = False
                break
            written += file.write(line)
            count += 1
        file.write(_line({"entries": count, "whole": whole}))


def check(path: str | os.PathLike[str], folder: str | os.PathLike[str], munged: str = "") -> list[str]:
    """How a copy in `folder` differs from what the manifest at `path` tells: printable lines, none where it does not.

    `munged` is what stands before the target of each link in the copy. No link is followed. Raises FileNotFoundError
    where there is no manifest, ValueError where it is none: then nothing in it is to be believed.
    """
    found: list[str] = []
    copy = _Copy(os.fspath(folder), munged)
    try:
        with open(_opened(path), "rb") as file:
            for entry in entries(file):
                difference = copy.difference(entry)
                if difference is not None:
                    found.append(difference)
                if len(found) == SHOWN:
                    break
    finally:
        copy.close()
    return found


def entries(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The entries of a manifest: `name` and `link`, or `name`, `size` and where it is hashed `sha256`.

    Each has the types it must have. Raises ValueError at the first line that is wrong.
    """
    if _object(file.readline(_LINE), 1).get("manifest") != FORMAT:
        raise ValueError(f"line 1: it is no manifest of format {FORMAT}")
    count = 0
    while True:
        number = count + 2
        line = file.readline(_LINE)
        if file.tell() > LIMIT:
            raise ValueError(f"it is larger than {LIMIT >> 20} MiB")
        entry = _object(line, number)
        if "entries" in entry:
            break
        if not is_entry(entry):
            raise ValueError(f"line {number}: it names no file and no link")
        yield entry
        count += 1
    if entry["entries"] != count or file.read(1):
        raise ValueError(f"line {number}: it is not the end of {count} entries")


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"


def _walked(top: str) -> Iterator[dict[str, Any]]:
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            found = os.scandir(os.path.join(top, below))
        except OSError:
            continue
        with found:
            for entry in found:
                name = os.path.join(below, entry.name)
                if entry.name == PARTIAL:
                    continue
                try:
                    if entry.is_symlink():
                        target = os.readlink(entry.path)
                        if confined.stays_inside(target, name.count("/")):
                            yield {"name": name, "link": target}
                    elif entry.is_dir():
                        waiting.append(name)
                    elif entry.is_file():
                        yield {"name": name, **_facts(os.open(entry.path, _READ))}
                except OSError:
                    continue


def _facts(descriptor: int) -> dict[str, Any]:
    """Size of an open regular file, which is closed then, and the hash of a small one's content. Raises OSError."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("no regular file")
        if status.st_size > HASHED:
            return {"size": status.st_size}
        digest, size = hashlib.sha256(), 0
        while piece := os.read(descriptor, _PIECE):
            digest.update(piece)
            size += len(piece)
        return {"size": size, "sha256": digest.hexdigest()}
    finally:
        os.close(descriptor)


def _opened(path: str | os.PathLike[str]) -> int:
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise ValueError(f"it can't be read: {e.strerror}") from e
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    return descriptor


def _object(line: bytes, number: int) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError(f"line {number}: it has no end")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"line {number}: no JSON") from e
    if not isinstance(found, dict):
        raise ValueError(f"line {number}: no JSON object")
    return found


def is_entry(entry: object) -> bool:
    """Whether it is what a manifest says of one file or link, with the types that `entries` promises."""
    if not isinstance(entry, dict):
        return False
    name, link, size, digest = (entry.get(key) for key in ("name", "link", "size", "sha256"))
    if not isinstance(name, str):
        return False
    if "link" in entry:
        return isinstance(link, str)
    return type(size) is int and (digest is None or isinstance(digest, str))


class _Copy:
    """A folder that is compared entry by entry; the one opened last stays open, since its neighbours come next."""

    def __init__(self, folder: str, munged: str) -> None:
        self._top = folder
        self._munged = munged
        self._path: tuple[str, ...] | None = None
        self._folder = -1

    def close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def difference(self, entry: dict[str, Any]) -> str | None:
        """What is different about one entry, None if nothing is. Raises ValueError for a name that leads elsewhere."""
        name = entry["name"]
        path = confined.parts(name)
        try:
            os.fsencode(name)
            self._open(path[:-1])
            if "link" in entry:
                target = os.readlink(path[-1], dir_fd=self._folder)
                return None if target == self._munged + entry["link"] else f"{name!r} leads elsewhere"
            there = _facts(os.open(path[-1], _READ, dir_fd=self._folder))
        except (OSError, UnicodeEncodeError) as e:
            return f"{name!r} is missing" if isinstance(e, FileNotFoundError) else f"{name!r} can't be read: {e}"
        if there["size"] != entry["size"]:
            return f"{name!r} has {there['size']} bytes, not {entry['size']}"
        if "sha256" in entry and there.get("sha256") != entry["sha256"]:
            return f"{name!r} has another content"
        return None

    def _open(self, path: tuple[str, ...]) -> None:
        if path == self._path and self._folder >= 0:
            return
        self.close()
        top = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._folder = confined.open_folder(top, path)
        finally:
            os.close(top)
        self._path = path
