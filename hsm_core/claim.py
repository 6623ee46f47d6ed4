"""Taking a directory for a sweep, and what to do when it holds one already."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from hsm_core.config import HsmConfig
from hsm_core.crashpoint import crashpoint
from hsm_core.exceptions import SweepError, SweepExists
from hsm_core.journal import replay, started
from hsm_core.owner import Owner
from hsm_core.ownership import refuse_foreign_sweep, refuse_open_directory
from hsm_core.remote.marks import end_processes
from hsm_core.space import check_room, why_unwritable


def claim(directory: Path, config: HsmConfig) -> tuple[Owner, bool]:
    """Become the owner of the directory; with that, whether it holds a sweep that is to be resumed.

    If it is not, `.hsm` is there and holds nothing but owner files. Of launchers that come at once one
    becomes the owner, and where one was killed before the first line of its journal, there is no sweep.
    Raises SweepExists when the directory holds a sweep and the configuration does not say what then;
    SweepBusy when another launcher has it; SweepError when it can't be made or written, or somebody else
    could make us run something by it.
    """
    hsm = directory / ".hsm"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_room(directory)
        refuse_open_directory(directory)
        try:
            hsm.mkdir(mode=0o700)
        except FileExistsError:
            refuse_foreign_sweep(directory)
        crashpoint("claimed")
        resumed = holds_sweep(directory) and to_be_resumed(directory, config)
        owner = Owner.acquire(hsm, takeover=config.takeover)
    except OSError as e:
        with contextlib.suppress(OSError):
            hsm.rmdir()
        raise SweepError(
            f"the sweep directory {directory} can't be made or written: {why_unwritable(e, directory)}"
        ) from e
    crashpoint("owned")
    try:
        if not resumed:
            # Another launcher may have run its sweep here since we looked.
            if holds_sweep(directory) and to_be_resumed(directory, config):
                return owner, True
            _clear(directory, owner)
    except BaseException:
        owner.release()
        raise
    return owner, resumed


def holds_sweep(directory: Path) -> bool:
    """Whether there is a journal with a whole line. Without one no task was ever submitted."""
    try:
        with open(directory / ".hsm" / "journal.jsonl", "rb") as journal:
            return journal.readline().endswith(b"\n")
    except FileNotFoundError:
        return False


def to_be_resumed(directory: Path, config: HsmConfig) -> bool:
    """Whether the sweep in the directory is to be resumed; if not, it is to be replaced. Raises SweepExists."""
    if config.resume or config.on_existing == "resume":
        return True
    if config.on_existing == "overwrite":
        return False
    past = started(directory / ".hsm" / "journal.jsonl")
    raise SweepExists(
        f"{directory} holds the sweep {past.id} already. To go on with it: hsm complete {past.id}. "
        "To run another one: name another hydra.sweep.dir. To replace it: hydra.launcher.on_existing=overwrite"
    )


def _clear(directory: Path, owner: Owner) -> None:
    """Remove a sweep: its tasks' output directories inside the directory, and all of hsm's own.

    The owner files stay: epochs go on counting, so that a launcher which wakes up late finds
    itself superseded. The journal goes after what only it tells of, and before all else.
    """
    hsm = directory / ".hsm"
    journal = hsm / "journal.jsonl"
    end_processes(f"{directory}:", below=owner.epoch)
    if holds_sweep(directory):
        for task in replay(journal).state.tasks.values():
            output = task.attempt.output_dir if task.attempt is not None else None
            if output is not None and Path(output).resolve().is_relative_to(directory.resolve()):
                shutil.rmtree(output, ignore_errors=True)
        crashpoint("outputs_cleared")
        for name in ("logs", "reports", "errors", "failed_tasks"):
            shutil.rmtree(directory / name, ignore_errors=True)
    journal.unlink(missing_ok=True)
    crashpoint("journal_cleared")
    for entry in hsm.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith("owner_"):
            entry.unlink()
