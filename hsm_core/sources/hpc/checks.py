"""`hsm sources test` of a cluster: whether its scheduler can be asked, and what that allows."""

from __future__ import annotations

from collections.abc import Callable

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.sources import examine
from hsm_core.sources.hpc.site import Here, Site
from hsm_core.sources.hpc.systems import scheduler_of
from hsm_core.sources.steps import Step, Walk, bare

STEPS = ["commands", "scheduler"]


def check(name: str, config: SourceConfig, tell: Callable[[Step], None]) -> None:
    """Go through all that the source needs, at its login node if it has one; each step is told once it is done."""
    if config.host is not None:
        _check_there(name, config, tell)
        return
    walk = Walk(STEPS, tell)
    try:
        _ask(walk, config, Here())
    except SourceError as e:
        walk.fail(bare(str(e), name))


def _check_there(name: str, config: SourceConfig, tell: Callable[[Step], None]) -> None:
    # Most clusters are asked here.
    from hsm_core.sources.hpc.login_node import There
    from hsm_core.sources.ssh import checks
    from hsm_core.ssh.connection import Connection
    from hsm_core.ssh.program import Program
    from hsm_core.ssh.visit import Visit, arrive, visit

    def ask(connection: Connection, where: str) -> None:
        def reach() -> Program:
            arrival = arrive(connection, config, where, "site")
            return visit(arrival, config, where, lambda found: Visit({"sweep": found["base"], "folders": []}))

        _ask(walk, config, There(reach))

    walk = Walk([*checks.way(config), examine.AGENT, examine.ROUND_TRIP, *STEPS], tell)
    checks.go(name, config, walk, [], ask)


def _ask(walk: Walk, config: SourceConfig, site: Site) -> None:
    """Raises SourceError."""
    site.start()
    scheduler = scheduler_of(config, site)
    walk.reach("commands", f"those of {scheduler.system} are on PATH")
    scheduler.start()
    walk.reach("scheduler", scheduler.facts())
