"""Opening a sweep: take its directory, freeze what its tasks will read, and start its sources."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
from hydra.core.utils import JobRuntime

import hsm_core
from hsm_core import entry as entries
from hsm_core import events as ev
from hsm_core import recorded_config, registry, versions
from hsm_core.claim import claim
from hsm_core.config import HsmConfig
from hsm_core.crashpoint import crashpoint
from hsm_core.exceptions import SweepError, Unwritable
from hsm_core.journal import Journal, replay
from hsm_core.lanes import Lanes
from hsm_core.launcher_log import let_go_of_terminal, log_path
from hsm_core.multirun import Multirun
from hsm_core.preparation import threads_per_task
from hsm_core.results import ReturnContext
from hsm_core.session import Session
from hsm_core.signals import Signals
from hsm_core.sources.base import SweepContext
from hsm_core.space import why_unwritable
from hsm_core.state import SweepState
from hsm_core.versions import Version


def open_session(
    config: HsmConfig,
    lanes: Lanes,
    multirun: Multirun,
    first_job: Sequence[str],
) -> Session:
    """Take the sweep's directory, freeze what tasks will read, and start the sources.

    `first_job` are the overrides of one of the first tasks: they get what it shares with others composed already.

    Raises SweepExists, SweepBusy, SweepChanged, JournalError, SnapshotError or SweepError; nothing has
    been run then, and a directory that was not a sweep before is none after.
    """
    directory = Path(str(multirun.config.hydra.sweep.dir)).absolute()
    hsm = directory / ".hsm"
    path = hsm / "journal.jsonl"
    owner, resumed = claim(directory, config)
    signals: Signals | None = None
    session: Session | None = None
    first: ev.SweepStarted | ev.SweepResumed | None = None
    try:
        signals = Signals(partial(let_go_of_terminal, log_path(hsm, owner.epoch)))
        signals.take()
        for name in ("results", "control", "agents"):
            (hsm / name).mkdir(exist_ok=True, mode=0o700)
        past = replay(path) if resumed else None
        if past is None:
            state = SweepState()
            version = versions.first(hsm, multirun, first_job, _own_settings(config))
            crashpoint("frozen")
            journal = Journal.create(path)
            first = _started(directory, version, recorded_config.config_hash(multirun.config), owner.epoch)
        else:
            state = past.state
            changed = check_config(state, directory, config, multirun)
            if config.original_code:
                version = versions.original(hsm, state)
            else:
                frozen = multirun, first_job, _own_settings(config)
                version = versions.later(hsm, owner.epoch, state, changed, *frozen)
            crashpoint("frozen")
            journal = Journal.open(path, past)
            command = tuple(entries.command_line())
            first = ev.SweepResumed(owner.epoch, socket.gethostname(), os.getpid(), command, os.getcwd())
        crashpoint("journal_opened")
        begun = first if isinstance(first, ev.SweepStarted) else state.started
        assert begun is not None, "a journal begins with the sweep's start"
        sweep = SweepContext(
            id=begun.id,
            key=sweep_key(begun),
            directory=directory,
            epoch=owner.epoch,
            payload=version.payload,
            config=config,
            threads_per_task=threads_per_task(config, lanes),
        )
        trusted = partial(_trusted, config=config, state=state)
        returns = ReturnContext(directory, multirun.composer, config.raise_on_failure, trusted)
        session = Session(config, directory, journal, owner, state, lanes, returns, signals, multirun.config)
        session.start(first, sweep, version.changes)
    except BaseException as e:
        if session is not None:
            session.leave_terminal()
        if signals is not None:
            signals.give_back()
        if isinstance(first, ev.SweepStarted):
            registry.forget(first.id)
        if not resumed:
            shutil.rmtree(hsm, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # its process ends, so the next launcher takes it for dead
                owner.release()
        if isinstance(e, (OSError, Unwritable)):
            raise SweepError(_unopened(directory, e)) from e
        raise
    return session


def _own_settings(config: HsmConfig) -> list[Path]:
    """The files that hold hsm's own settings, which are not frozen: there may be secrets in them."""
    return [Path(file).resolve() for file in (config.config_file, config.sweep_file) if file is not None]


def _unopened(directory: Path, error: OSError | Unwritable) -> str:
    why = why_unwritable(error, directory) if isinstance(error, OSError) else str(error)
    return f"The sweep in {directory} can't be opened, and nothing was run: {why}"


def check_config(state: SweepState, directory: Path, config: HsmConfig, multirun: Multirun) -> list[str]:
    """The keys in which today's configuration differs from the one that the sweep recorded; nothing is changed.

    Raises SweepChanged where it differs and that was not accepted. With `original_code` today's is not used, so
    nothing is compared.
    """
    if config.original_code:
        return []
    changed = recorded_config.changed_keys(directory / ".hsm", state, multirun.config, multirun.context)
    if changed and not config.accept_config_change:
        raise recorded_config.refusal(state.id, changed)
    return changed


def _started(directory: Path, version: Version, config_hash: str, epoch: int) -> ev.SweepStarted:
    name = directory.name if directory.name.startswith("sweep_") and registry.may_be_id(directory.name) else None
    try:
        sweep_id = registry.register(directory, name)
        crashpoint("registered")
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
        commit=version.snapshot.commit,
        dirty=version.snapshot.dirty,
        config_hash=config_hash,
    )


def _trusted(name: str, config: HsmConfig, state: SweepState) -> bool:
    configured = config.compute_sources.get(name)
    if configured is not None and configured.trusted is not None:
        return configured.trusted
    known = state.sources.get(name)
    if known is None or known.facts.get("shares_files") is False:  # as a cluster that is reached by SSH
        return False
    return known.type in ("local", "hpc")


def sweep_key(begun: ev.SweepStarted) -> str:
    """The name of a sweep among those of all users and machines: its id, and a hash of how it began."""
    facts = json.dumps([begun.id, begun.host, begun.pid, begun.cwd, begun.argv, begun.config_hash])
    return f"{begun.id}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
