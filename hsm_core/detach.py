"""Starting a launcher that no terminal can end: in a session of its own, with its output in the sweep."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsm_core.events import SweepResumed, SweepStarted
from hsm_core.exceptions import SweepNotBegun
from hsm_core.journal import Tail, replay
from hsm_core.launcher_log import log_path
from hsm_core.sweep_launch import cannot_run

_LOOK_EVERY = 0.05


@dataclass(frozen=True)
class Detached:
    """A sweep that has begun, and its launcher."""

    id: str
    directory: Path
    pid: int
    log: Path
    """what the launcher prints"""


def start_detached(arguments: Sequence[str], directory: Path, cwd: Path) -> Detached:
    """Run a launcher's command line in `cwd`, for the sweep in `directory`, and wait until the sweep has begun.

    That is so once the launcher has written its first line into the journal; from then on it needs
    nobody. Raises SweepNotBegun, with all it said, when it ended before that; HsmError when it can't
    be run. An exception while waiting, such as Ctrl-C, ends the launcher.
    """
    hsm = directory / ".hsm"
    past = replay(hsm / "journal.jsonl") if hsm.is_dir() else None
    tail = Tail(hsm / "journal.jsonl", past)
    # In the sweep, where it belongs, there is no `.hsm` before the launcher has made it.
    fd, name = tempfile.mkstemp(".log.new", f".{directory.name}_", directory.parent if past is None else hsm)
    said = Path(name)
    try:
        launcher = _start(arguments, cwd, fd)
        try:
            begun = _wait_for_begin(tail, launcher)
        except BaseException:
            launcher.terminate()
            launcher.wait()
            raise
        if begun is None:
            raise SweepNotBegun(said.read_text("utf-8", "replace"), launcher.returncode)
        log = log_path(hsm, begun.epoch)
        said.rename(log)
    except BaseException:
        said.unlink(missing_ok=True)
        raise
    sweep_id = begun.id if isinstance(begun, SweepStarted) else replay(hsm / "journal.jsonl").state.id
    return Detached(sweep_id, directory, launcher.pid, log)


def _start(arguments: Sequence[str], cwd: Path, output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            arguments, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as e:
        raise cannot_run(arguments[0], e) from e
    finally:
        os.close(output)


def _wait_for_begin(tail: Tail, launcher: subprocess.Popen[bytes]) -> SweepStarted | SweepResumed | None:
    """The launcher's first line; None when it ended without one."""
    while True:
        ended = launcher.poll() is not None  # asked first: what it wrote before it ended is read after
        for entry in tail.poll():
            if isinstance(entry.event, (SweepStarted, SweepResumed)) and entry.event.pid == launcher.pid:
                return entry.event
        if ended:
            return None
        time.sleep(_LOOK_EVERY)
