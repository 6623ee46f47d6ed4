"""Finding a sweep by its id from anywhere: `$XDG_STATE_HOME/hsm/sweeps/<id>` names its directory.

A convenience for one user on one machine. The sweep itself never needs it: what can't be registered is
still found by the path of its directory.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import itertools
import json
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hsm_core import journal
from hsm_core.exceptions import SweepNotFound

_PREFIX = "sweep_"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SHOWN = 5


@dataclass(frozen=True)
class RegistryEntry:
    """A sweep's id and its directory."""

    id: str
    directory: Path


def new_id() -> str:
    """An id made of the local time, `sweep_YYYYMMDD_HHMMSS`."""
    return datetime.now().strftime(f"{_PREFIX}%Y%m%d_%H%M%S")


def may_be_id(text: str) -> bool:
    """Whether a sweep can be found by this text: it names a file of the registry."""
    return _ID.fullmatch(text) is not None


def register(directory: Path, sweep_id: str | None = None) -> str:
    """Note where a sweep is and return the id it is found by.

    Without `sweep_id` a new id is made of the local time. An id that is taken gets `_2`, `_3`, ...; only a
    `sweep_id` which is noted for this very directory already is kept. Raises OSError when the registry can't be
    written (a read-only home, a full disk): no reason to stop a sweep, so the caller says so and goes on. Raises
    ValueError for an id that can't be a file name.
    """
    wanted = new_id() if sweep_id is None else sweep_id
    if not may_be_id(wanted):
        raise ValueError(f"'{wanted}' is no id for a sweep: letters, digits, '.', '_' and '-' only, at most 200")
    folder = _folder()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    place = os.path.abspath(directory)
    record = {"directory": place, "created": _next_moment(folder)}
    for number in itertools.count(1):
        name = wanted if number == 1 else f"{wanted}_{number}"
        try:
            _create(folder / name, json.dumps(record))
        except FileExistsError:
            noted = _read(folder / name)
            if sweep_id is None or noted is None or noted[1] != place:
                continue
        return name
    raise AssertionError("unreachable: the numbers never end")


def forget(sweep_id: str) -> None:
    """Take back what `register` noted of a sweep that was not to be; nothing noted is no error."""
    with contextlib.suppress(OSError):
        (_folder() / sweep_id).unlink()


def find(text: str) -> RegistryEntry:
    """The sweep meant by an id, the beginning of one (with or without `sweep_`), `latest`, or a path to its directory.

    Raises SweepNotFound, with the ids that are near or that the text could mean; JournalError when a path leads to
    a sweep whose journal can't be read.
    """
    if os.sep in text or text in (".", "..", "~"):
        return _at(Path(os.path.expanduser(text)), text)
    known = {entry.id: entry for entry in entries()}
    if text == "latest" and known:
        return next(iter(known.values()))
    for name in (text, _PREFIX + text):
        if name in known:
            return known[name]
    matches = [name for name in known if text and name.startswith((text, _PREFIX + text))]
    if len(matches) == 1:
        return known[matches[0]]
    if matches:
        raise SweepNotFound(f"'{text}' may mean {_listed(matches)}. Write more of the id.")
    if text and (Path(text) / ".hsm").is_dir():
        return _at(Path(text), text)
    raise SweepNotFound(_unknown(text, list(known)))


def entries() -> list[RegistryEntry]:
    """All known sweeps, newest first. Those whose directory is gone are left out; one directory is listed once.

    Raises OSError when there is a registry that can't be read.
    """
    try:
        folder = _folder()
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        noted = _read(folder / name) if may_be_id(name) else None
        if noted is not None and os.path.isdir(noted[1]):
            found.append((*noted, name))
    newest: dict[str, RegistryEntry] = {}
    for _, place, name in sorted(found, reverse=True):
        newest.setdefault(place, RegistryEntry(name, Path(place)))
    return list(newest.values())


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # so the XDG specification wants it
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError:
            raise FileNotFoundError(
                errno.ENOENT, "this user has no home directory; set XDG_STATE_HOME", "~/.local/state"
            ) from None
    return Path(state) / "hsm" / "sweeps"


def _next_moment(folder: Path) -> str:
    """Now, or just behind the newest sweep where the clock was set back since: what is newest is the last one made."""
    noted = [found[0] for name in os.listdir(folder) if (found := _read(folder / name)) is not None]
    moment = datetime.now(timezone.utc)
    with contextlib.suppress(ValueError, OverflowError):
        moment = max(moment, datetime.fromisoformat(max(noted, default="")) + timedelta(microseconds=1))
    return moment.isoformat(timespec="microseconds")


def _create(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text + "\n")
    except OSError:
        path.unlink()
        raise


def _read(path: Path) -> tuple[str, str] | None:
    """When it was noted, and the directory; None for a file that is not (or not yet) one of ours."""
    try:
        record = json.loads(path.read_text("utf-8"))
        return str(record["created"]), str(record["directory"])
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError):
        return None


def _at(directory: Path, text: str) -> RegistryEntry:
    if not (directory / ".hsm").is_dir():
        raise SweepNotFound(f"'{text}' is no directory of a sweep, it has no .hsm. `hsm sweeps` lists the sweeps.")
    place = Path(os.path.abspath(directory))
    return RegistryEntry(journal.started(place / ".hsm" / "journal.jsonl").id, place)


def _listed(ids: list[str]) -> str:
    more = len(ids) - _SHOWN
    return ", ".join(ids[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _unknown(text: str, known: list[str]) -> str:
    if not known:
        return f"There is no sweep '{text}': none is registered here. A path to a sweep's directory works as well."
    by_short = {name.removeprefix(_PREFIX): name for name in known}
    near = difflib.get_close_matches(text.removeprefix(_PREFIX), by_short, n=3)
    hint = f"; did you mean {_listed([by_short[name] for name in near])}?" if near else f"; the latest is {known[0]}."
    return f"There is no sweep '{text}'{hint} `hsm sweeps` lists all; a path to a sweep's directory works as well."
