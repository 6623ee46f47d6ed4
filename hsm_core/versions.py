"""Which code and configuration the launchers of one sweep run, one after the other.

The first one's are in `.hsm/snapshot` and `.hsm/payload` and stay there. Each later launcher gets a payload of its own,
`payload.<epoch>`, and a snapshot, `snapshot.<epoch>`, unless an earlier one holds the same files. Nothing of these is
ever changed: attempts may outlive their launcher, and `original_code` goes back to the first.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsm_core import entry as entries
from hsm_core import events as ev
from hsm_core import payload, recorded_config, snapshot
from hsm_core.entry import Entry
from hsm_core.exceptions import SnapshotError
from hsm_core.multirun import Multirun
from hsm_core.snapshot import Snapshot
from hsm_core.state import SweepState

NAMED = 5
"""changed files that an event names"""


@dataclass(frozen=True)
class Version:
    """What the tasks of one launcher run."""

    payload: Path
    snapshot: Snapshot
    changes: Sequence[ev.Event] = ()
    """what the journal has to tell of it: the code or the configuration is another than before"""


def first(hsm: Path, multirun: Multirun, job: Sequence[str], hidden: Collection[Path]) -> Version:
    """Freeze what a new sweep runs, but for the `hidden` files; `job` as in `open_session`. Raises SnapshotError."""
    entry = entries.find_entry(multirun.function)
    code = payload.freeze(hsm / "snapshot", multirun.config, entry, hidden)
    return _version(hsm / "payload", code, multirun, job, entry)


def later(
    hsm: Path,
    epoch: int,
    state: SweepState,
    changed: Sequence[str],
    multirun: Multirun,
    job: Sequence[str],
    hidden: Collection[Path],
) -> Version:
    """Freeze what the launcher of this epoch runs, but for the `hidden` files.

    `changed` are the accepted changes of the configuration. Raises SnapshotError.
    """
    entry = entries.find_entry(multirun.function)
    code = payload.freeze(hsm / f"snapshot.{epoch}", multirun.config, entry, hidden)
    kept = _same_before(hsm, code)
    if kept is not None:
        shutil.rmtree(code.folder)
    version = _version(hsm / f"payload.{epoch}", kept or code, multirun, job, entry)
    changes: list[ev.Event] = []
    if changed:
        keys = tuple(changed[: recorded_config.SHOWN])
        changes.append(ev.ConfigChanged(version.payload.name, recorded_config.config_hash(multirun.config), keys))
    return _told(state, hsm, dataclasses.replace(version, changes=changes))


def original(hsm: Path, state: SweepState) -> Version:
    """Go back to what the sweep ran at its start. Raises SnapshotError where that is not there as it was."""
    begun = SweepState()
    folder, code = hsm / begun.config, snapshot.read(hsm / begun.code)
    try:
        facts = json.loads((folder / "payload.json").read_text("utf-8"))
        missing = [] if (folder / "payload.pkl").is_file() else [f"{begun.config}/payload.pkl"]
    except (OSError, ValueError):
        facts, missing = {}, [f"{begun.config}/payload.json"]
    if code is None:
        missing.append(f"{begun.code}/{snapshot.MANIFEST}")
    else:
        missing += [f"{begun.code}/{name}" for name in snapshot.damaged(code)]
    if code is None or missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise SnapshotError(
            f"the code and configuration of the sweep's start are not there as they were: in {hsm} "
            f"{', '.join(missing[:NAMED])}{more} is gone or changed. Without original_code the code of today is used."
        )
    place = str(facts.get("sweep_dir"))
    if not (os.path.isdir(place) and os.path.samefile(place, hsm.parent)):
        raise SnapshotError(
            f"the sweep moved from {place} to {hsm.parent}, but the configuration of its start names the old place. "
            f"For original_code move it back, or let {place} be a link to it."
        )
    assert state.started is not None, "a journal begins with the sweep's start"
    changes: list[ev.Event] = [ev.Note("INFO", "What is left runs with code and configuration of the sweep's start")]
    if state.config != begun.config:
        changes.append(ev.ConfigChanged(begun.config, state.started.config_hash))
    return _told(state, hsm, Version(folder, code, changes))


def _version(folder: Path, code: Snapshot, multirun: Multirun, job: Sequence[str], entry: Entry | None) -> Version:
    """Write the payload for tasks that run this snapshot."""
    payload.write(folder, code, multirun, job, entry)
    recorded_config.record(folder, multirun.config)
    return Version(folder, code)


def _same_before(hsm: Path, fresh: Snapshot) -> Snapshot | None:
    """An earlier snapshot with the very same files, as it would have been taken now."""
    for folder in sorted(hsm.glob("snapshot*")):
        earlier = None if folder == fresh.folder or folder.suffix == ".part" else snapshot.read(folder)
        if earlier is not None and earlier.files == fresh.files and not snapshot.damaged(earlier):
            return dataclasses.replace(fresh, folder=folder)
    return None


def _told(state: SweepState, hsm: Path, version: Version) -> Version:
    """The version, its change of code among its changes."""
    now = version.snapshot
    if now.folder.name == state.code:
        return version
    before = snapshot.read(hsm / state.code)
    if before is None:
        event = ev.CodeChanged(now.folder.name, commit=now.commit, dirty=now.dirty)
    else:
        either = before.files.keys() | now.files.keys()
        names = sorted(name for name in either if before.files.get(name) != now.files.get(name))
        shown = tuple(_shown(name) for name in names[:NAMED])
        event = ev.CodeChanged(now.folder.name, shown, len(names), before.commit, now.commit, now.dirty)
    return dataclasses.replace(version, changes=[*version.changes, event])


def _shown(name: str) -> str:
    """A frozen file by its name in the project; those from elsewhere with their folder in the snapshot."""
    return name.removeprefix("project/").removeprefix("script/")
