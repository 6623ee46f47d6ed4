"""What stands behind `HsmLauncher.launch`: check the configuration, then hand over to a session."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hsm_core import entry, selection
from hsm_core.config import HsmConfig
from hsm_core.config import load as config_load
from hsm_core.exceptions import SweepStopped
from hsm_core.lanes import Lane, Lanes
from hsm_core.opening import open_session
from hsm_core.plan import make_plan, show_plan
from hsm_core.session import Session
from hsm_core.sources import load_source
from hsm_core.strategies import load_strategy
from hsm_core.text import printable_lines

log = logging.getLogger(__name__)


def open_sweep(hydra_config: DictConfig, context: HydraContext, function: TaskFunction) -> Session:
    """Open the sweep that a composed configuration describes.

    Everything that can be wrong with it is found before anything is started or written.
    Raises HsmError.
    """
    setup_globals()
    configure_log(hydra_config.hydra.hydra_logging, hydra_config.hydra.verbose)
    config = read_config(hydra_config, function)
    lanes = choose_sources(config)
    session = open_session(config, lanes, hydra_config, context, function)
    names = ", ".join(f"{source.name} ({source.slots})" for source in lanes)
    log.info("%s in %s, on %s", session.id, session.directory, names)
    return session


def read_config(hydra_config: DictConfig, function: TaskFunction) -> HsmConfig:
    """The configuration of hsm from the `hydra.launcher` node and hsm_config.yaml."""
    node: Any = OmegaConf.to_container(hydra_config.hydra.launcher, resolve=True)
    return config_load.load(node, cwd=Path.cwd(), app_dir=entry.app_dir(entry.find_entry(function)))


def choose_sources(config: HsmConfig) -> Lanes:
    """The sources of the sweep, not started yet, and the strategy that deals tasks to them."""
    chosen = selection.select(config.sources, config.compute_sources)
    default = "priority" if selection.priorities_given(chosen) else "round_robin"
    strategy = load_strategy(config.strategy or default, seed=config.seed, base=Path.cwd())
    lanes = {}
    for selected in chosen:
        source = load_source(selected, config.gpus_per_task)
        weight = selected.config.weight
        lanes[selected.name] = Lane(source, float(source.slots) if weight is None else weight, selected.rank)
    return Lanes(lanes, strategy)


def stopped(session: Session, why: SweepStopped) -> NoReturn:
    """Close a sweep that ended before its tasks, say how to go on, and end the process with its exit code."""
    session.close(why)
    log.error("%s", printable_lines(str(why)))
    log.error("To go on: hsm complete %s", session.id)
    raise SystemExit(why.exit_code)


def plan_only(
    hydra_config: DictConfig,
    context: HydraContext,
    function: TaskFunction,
    job_overrides: Sequence[Sequence[str]],
    first_index: int,
) -> NoReturn:
    """Show what would be run, run nothing and end the process: exit code 1 if there are errors."""
    lanes = choose_sources(read_config(hydra_config, function))
    plan = make_plan(lanes, hydra_config, context, job_overrides, first_index)
    raise SystemExit(show_plan(plan))
