"""Taking a directory for a sweep: an exclusive mkdir of `.hsm`, and what to do when it is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

from hsm_core.config import HsmConfig
from hsm_core.exceptions import SweepError, SweepExists
from hsm_core.journal import replay
from hsm_core.owner import Owner, current
from hsm_core.ownership import refuse_foreign_sweep, refuse_open_directory
from hsm_core.sources.local import end_processes


def claim(directory: Path, config: HsmConfig) -> bool:
    """Make `.hsm` in the directory; True if a sweep that is there already is to be resumed.

    Raises SweepExists when the directory is taken and the configuration does not say what then;
    SweepError when it can't be made or written, or somebody else could make us run something by it.
    """
    hsm = directory / ".hsm"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        refuse_open_directory(directory)
        hsm.mkdir(mode=0o700)
        return False
    except FileExistsError:
        refuse_foreign_sweep(directory)
    except OSError as e:
        raise SweepError(f"the sweep directory {directory} can't be made or written: {e.strerror}") from e
    if not _has_events(hsm):
        if _debris(hsm):
            hsm.mkdir(mode=0o700)
            return False
        raise SweepExists(
            f"{directory} is being taken by another launcher, or one was killed while it took it. "
            f"If nothing runs there: rm -r '{hsm}'"
        )
    if to_be_resumed(directory, config):
        return True
    _clear(directory)
    return False


def holds_sweep(directory: Path) -> bool:
    """Whether there is a sweep with a journal in the directory."""
    return _has_events(directory / ".hsm")


def to_be_resumed(directory: Path, config: HsmConfig) -> bool:
    """Whether the sweep that the directory holds is to be resumed; False: overwritten.

    Raises SweepExists when the configuration wants neither.
    """
    if config.resume or config.on_existing == "resume":
        return True
    if config.on_existing == "overwrite":
        return False
    past = replay(directory / ".hsm" / "journal.jsonl").state
    raise SweepExists(
        f"{directory} holds the sweep {past.id} already. To go on with it: hsm complete {past.id}. "
        "To run another one: name another hydra.sweep.dir. To replace it: hydra.launcher.on_existing=overwrite"
    )


def _has_events(hsm: Path) -> bool:
    journal = hsm / "journal.jsonl"
    return journal.exists() and journal.stat().st_size > 0


def _debris(hsm: Path) -> bool:
    """Remove the `.hsm` of a launcher that was killed before it wrote a line; False if it may still live."""
    taker = current(hsm)
    if taker is None or taker.alive is not False:
        return False
    shutil.rmtree(hsm)
    return True


def _clear(directory: Path) -> None:
    """Remove a sweep: its tasks' output directories inside the directory, and all of hsm's own.

    The owner files stay, in a new `.hsm`: epochs go on counting, so that a launcher which wakes
    up late finds itself superseded.
    """
    hsm = directory / ".hsm"
    owner = Owner.acquire(hsm)
    past = replay(hsm / "journal.jsonl").state
    end_processes(f"{directory}:", below=owner.epoch)
    for task in past.tasks.values():
        output = task.attempt.output_dir if task.attempt is not None else None
        if output is not None and Path(output).resolve().is_relative_to(directory.resolve()):
            shutil.rmtree(output, ignore_errors=True)
    for name in ("logs", "reports", "errors", "failed_tasks"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for entry in hsm.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith("owner_"):
            entry.unlink()
    owner.release()
