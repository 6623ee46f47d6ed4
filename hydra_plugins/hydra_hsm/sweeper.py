"""`hydra/sweeper=hsm`: grids and paired lists, handed to the launcher one job at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

import hydra_plugins.hydra_hsm.config  # noqa: F401 - registers the node


class HsmSweeper(Sweeper):
    """Runs every combination of the swept overrides, as the basic sweeper does, and of `paired` groups.

    `params`: overrides as for the basic sweeper; `paired`: groups of lists that go in step,
    each a mapping of key to values; `max_runs`: at most so many jobs.
    """

    def __init__(self, params: Any = None, paired: Any = None, max_runs: int | None = None) -> None:
        self._params = params
        self._paired = paired
        self._max_runs = max_runs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        """Launch all jobs at once; raises the first failure when all are done."""
        from hsm_core.exceptions import ConfigError
        from hsm_core.grid import jobs_of
        from hsm_core.remote.compose import Composer

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        try:
            jobs = jobs_of(loader, self._params, self._paired, arguments, self._max_runs)
        except ConfigError as e:
            raise CompactHydraException(str(e)) from e
        multirun = getattr(self.launcher, "multirun", None)  # hsm's own launcher has a composer, which tasks share
        composer = Composer(loader, self.config) if multirun is None else multirun.composer
        for number, job in enumerate(jobs.samples()):
            composer.compose(job, number)
        directory = self.config.hydra.sweep.dir
        if not OmegaConf.select(self.config, "hydra.launcher.dry_run"):
            _save(self.config, directory)
        returns = self.launcher.launch(jobs, initial_job_idx=0)
        for ended in returns:
            _ = ended.return_value
        return [returns]


def _save(config: DictConfig, directory: Any) -> None:
    from pathlib import Path

    path = Path(directory)
    # A sweep that is there already keeps its file: the launcher has not yet said whether it goes on.
    if not (path / ".hsm").exists():
        try:
            path.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, path / "multirun.yaml")
        except OSError as e:
            words = f"the sweep directory {path.absolute()} can't be made or written: {e.strerror}; see hydra.sweep.dir"
            raise CompactHydraException(words) from e
