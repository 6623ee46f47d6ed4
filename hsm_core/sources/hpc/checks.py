"""`hsm sources test` of a cluster: whether its scheduler can be asked, and what that allows."""

from __future__ import annotations

from collections.abc import Callable

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.sources.hpc.systems import scheduler_of
from hsm_core.sources.steps import Step, Walk


def check(config: SourceConfig, tell: Callable[[Step], None]) -> None:
    """Go through all that a source on this machine's cluster needs; each step is told once it is done."""
    walk = Walk(["commands", "scheduler"], tell)
    try:
        scheduler = scheduler_of(config)
        walk.reach("commands", f"those of {scheduler.system} are on PATH")
        scheduler.start()
        walk.reach("scheduler", scheduler.facts())
    except SourceError as e:
        walk.fail(str(e))
