"""What stands behind `HsmLauncher.launch`: look at what is there, then hand over to a session."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import configure_log, setup_globals
from omegaconf import DictConfig, OmegaConf

from hsm_core.claim import holds_sweep, to_be_resumed
from hsm_core.config import HsmConfig
from hsm_core.exceptions import ConfigError, SweepError, SweepStopped
from hsm_core.journal import replay
from hsm_core.lanes import Lanes
from hsm_core.multirun import Multirun
from hsm_core.opening import check_config, open_session
from hsm_core.ownership import refuse_foreign_sweep
from hsm_core.plan import make_plan, show_plan
from hsm_core.remote.place import problem
from hsm_core.session import Session
from hsm_core.state import SweepState
from hsm_core.text import printable, printable_lines

log = logging.getLogger(__name__)


def open_sweep(
    config: HsmConfig,
    lanes: Lanes,
    multirun: Multirun,
    jobs: Sequence[Sequence[str]],
) -> Session:
    """Open the sweep that a checked configuration describes; `jobs` are its first ones.

    Everything that can be wrong with it is found before anything is started or written.
    Raises HsmError.
    """
    setup_globals()
    hydra = multirun.config.hydra
    configure_log(hydra.hydra_logging, hydra.verbose)
    check_subdir(multirun.config, jobs)
    check_resources(config, lanes, multirun, jobs)
    session = open_session(config, lanes, multirun, jobs[0] if jobs else ())
    names = ", ".join(f"{source.name} ({source.slots or 'by its GPUs'})" for source in lanes)
    log.info("%s in %s, on %s", session.id, session.directory, names)
    return session


def check_existing(config: HsmConfig, multirun: Multirun) -> SweepState | None:
    """The sweep that `open_sweep` would resume, None for a new one; what it would refuse is refused here already.

    Raises SweepExists, SweepChanged, JournalError, or SweepError where somebody else made it.
    """
    directory = Path(str(multirun.config.hydra.sweep.dir)).absolute()
    if not os.path.lexists(directory / ".hsm"):
        return None
    refuse_foreign_sweep(directory)
    if not holds_sweep(directory) or not to_be_resumed(directory, config):
        return None
    state = replay(directory / ".hsm" / "journal.jsonl").state
    check_config(state, directory, config, multirun)
    return state


def check_subdir(hydra_config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Refuse a `hydra.sweep.subdir` without interpolations that leads out of the sweep, or is that of several jobs.

    What depends on a task is known when the task is composed: its worker looks at it. Raises ConfigError.
    """
    raw: Any = OmegaConf.to_container(hydra_config.hydra.sweep, resolve=False)
    subdir = str(raw["subdir"])
    if "${" in subdir or not jobs or any(text.lstrip("+").startswith("hydra.sweep.") for text in jobs[0]):
        return
    sweep = os.path.abspath(str(hydra_config.hydra.sweep.dir))
    words = problem(sweep, os.path.abspath(os.path.join(sweep, subdir)))
    if words is None and len(jobs) > 1:
        words = "it is the same for all tasks, which must not share a directory; put ${hydra.job.num} in it"
    if words is not None:
        raise ConfigError([printable(f"hydra.sweep.subdir={subdir}: {words}")])


def check_resources(config: HsmConfig, lanes: Lanes, multirun: Multirun, jobs: Sequence[Sequence[str]]) -> None:
    """Refuse `hsm.resources` that can't be read, as far as they are known now and for a cluster. Raises ConfigError.

    What depends on a task fails that task, before it is submitted.
    """
    on_cluster = any(source.type == "hpc" and source.config.mode == "jobs" for source in lanes)
    if not on_cluster or config.original_code:
        return
    from hsm_core.sources.hpc.own_words import wrong_early

    if problems := wrong_early(multirun, jobs):
        raise ConfigError([printable(problem) for problem in problems])


def stopped(session: Session, why: SweepStopped) -> NoReturn:
    """Close a sweep that ended before its tasks, say how to go on, and end the process with its exit code."""
    session.close(why)
    log.error("%s", printable_lines(str(why)))
    log.error("To go on: hsm complete %s", session.id)
    raise SystemExit(why.exit_code)


def plan_only(
    config: HsmConfig,
    lanes: Lanes,
    multirun: Multirun,
    job_overrides: Sequence[Sequence[str]],
    first_index: int,
) -> NoReturn:
    """Show what would be run, run nothing and end the process: exit code 1 if there are errors."""
    resumed, refused = None, []
    try:
        resumed = check_existing(config, multirun)
    except SweepError as e:
        refused.append(str(e))
    try:
        check_resources(config, lanes, multirun, job_overrides)
    except ConfigError as e:
        refused += e.problems
    plan = make_plan(lanes, multirun, job_overrides, first_index, resumed)
    plan["errors"] += refused
    raise SystemExit(show_plan(plan))
