"""Opening a sweep: its directory is taken, what tasks will read is frozen, a session begins."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.utils import JobRuntime
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

import hsm_core
from hsm_core import entry as entries
from hsm_core import events as ev
from hsm_core import payload, registry
from hsm_core.claim import claim
from hsm_core.config import HsmConfig
from hsm_core.exceptions import SweepError, Unwritable
from hsm_core.fail_fast import FailureLimit
from hsm_core.journal import Journal, replay
from hsm_core.lanes import Lanes
from hsm_core.launcher_log import let_go_of_terminal, log_path
from hsm_core.owner import Owner
from hsm_core.remote.compose import Composer
from hsm_core.results import ReturnContext
from hsm_core.session import Session
from hsm_core.signals import Signals
from hsm_core.snapshot import Snapshot
from hsm_core.sources.base import SweepContext
from hsm_core.sources.local import cores
from hsm_core.space import NO_SPACE, is_low, room_words
from hsm_core.state import SweepState
from hsm_core.sweepers import launches_once


def open_session(
    config: HsmConfig,
    lanes: Lanes,
    hydra_config: DictConfig,
    context: HydraContext,
    function: TaskFunction,
) -> Session:
    """Take the sweep's directory, freeze what tasks will read, and start the sources.

    The directory is taken by an exclusive mkdir of `.hsm` in it. Raises SweepExists,
    SweepBusy, JournalError, SnapshotError or SweepError; nothing has been run then, and a
    directory that was not a sweep before is none after.
    """
    directory = Path(str(hydra_config.hydra.sweep.dir)).absolute()
    hsm = directory / ".hsm"
    resumed = claim(directory, config)
    owner: Owner | None = None
    signals: Signals | None = None
    session: Session | None = None
    first: ev.SweepStarted | ev.SweepResumed | None = None
    try:
        if is_low(directory):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        owner = Owner.acquire(hsm, takeover=config.takeover)
        signals = Signals(partial(let_go_of_terminal, log_path(hsm, owner.epoch)))
        signals.take()
        for name in ("results", "control", "agents"):
            (hsm / name).mkdir(exist_ok=True, mode=0o700)
        entry = entries.find_entry(function)
        snapshot = payload.freeze(hsm / "snapshot", hydra_config, entry)
        payload.write(hsm / "payload", snapshot, hydra_config, context, function, entry)
        past = replay(hsm / "journal.jsonl") if resumed else None
        journal = Journal.create(hsm / "journal.jsonl") if past is None else Journal.open(hsm / "journal.jsonl", past)
        state = SweepState() if past is None else past.state
        if past is None:
            first = _started(directory, snapshot, _config_hash(hydra_config), owner.epoch)
        else:
            first = ev.SweepResumed(owner.epoch, socket.gethostname(), os.getpid(), tuple(entries.command_line()))
        sweep = SweepContext(
            id=first.id if isinstance(first, ev.SweepStarted) else state.id,
            directory=directory,
            epoch=owner.epoch,
            payload=hsm / "payload",
            config=config,
            threads_per_task=config.threads_per_task or _threads(lanes),
        )
        composer = Composer(context.config_loader, hydra_config)
        trusted = partial(_trusted, config=config, state=state)
        returns = ReturnContext(directory, composer, config.raise_on_failure, trusted)
        failures = FailureLimit(config.fail_fast, all_known=launches_once(hydra_config))
        session = Session(config, directory, journal, owner, state, lanes, returns, failures, signals)
        session.start(first, sweep)
    except BaseException as e:
        if session is not None:
            session.leave_terminal()
        if signals is not None:
            signals.give_back()
        if isinstance(first, ev.SweepStarted):
            registry.forget(first.id)
        if not resumed:
            shutil.rmtree(hsm, ignore_errors=True)
        elif owner is not None:
            with contextlib.suppress(OSError):  # its process ends, so the next launcher takes it for dead
                owner.release()
        if isinstance(e, (OSError, Unwritable)):
            raise SweepError(_unopened(directory, e)) from e
        raise
    return session


def _unopened(directory: Path, error: OSError | Unwritable) -> str:
    words = f"The sweep in {directory} can't be opened, and nothing was run. {error}"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        words = f"{words}; {room_words(directory)}. Make room, or name another hydra.sweep.dir"
    return words


def _config_hash(config: DictConfig) -> str:
    """16 hex digits over the app's own configuration as the sweep found it, before any task's overrides."""
    keys: Any = [key for key in config if key != "hydra"]
    own = OmegaConf.masked_copy(config, keys)
    return hashlib.sha256(OmegaConf.to_yaml(own).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _started(directory: Path, snapshot: Snapshot, config_hash: str, epoch: int) -> ev.SweepStarted:
    name = directory.name if directory.name.startswith("sweep_") else None
    try:
        sweep_id = registry.register(directory, name)
    except OSError:
        # The registry only makes sweeps easy to find; a home that can't be written is no reason to stop.
        sweep_id = name or registry.new_id()
    return ev.SweepStarted(
        id=sweep_id,
        format=ev.FORMAT,
        hsm=hsm_core.__version__,
        python=sys.version.split()[0],
        hydra=hydra.__version__,
        cwd=os.getcwd(),
        argv=tuple(entries.command_line()),
        app=JobRuntime.instance().get("name"),
        host=socket.gethostname(),
        pid=os.getpid(),
        epoch=epoch,
        commit=snapshot.commit,
        dirty=snapshot.dirty,
        config_hash=config_hash,
    )


def _threads(lanes: Lanes) -> int:
    """Threads a task may start so that all local slots together don't ask for more than the cores."""
    slots = sum(source.slots for source in lanes if source.type == "local")
    return max(1, cores() // max(1, slots))


def _trusted(name: str, config: HsmConfig, state: SweepState) -> bool:
    configured = config.compute_sources.get(name)
    if configured is not None and configured.trusted is not None:
        return configured.trusted
    known = state.sources.get(name)
    return known is not None and known.type in ("local", "hpc")
