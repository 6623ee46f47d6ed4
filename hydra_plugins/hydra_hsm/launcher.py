"""`hydra/launcher=hsm`: Hydra's jobs become tasks of a sweep over many sources."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

import hydra_plugins.hydra_hsm.config  # noqa: F401 - registers the node

if TYPE_CHECKING:
    from hsm_core.session import Session


class HsmLauncher(Launcher):
    """Opens a sweep with the first `launch` and keeps it to the end of the multirun."""

    def __init__(self, **options: Any) -> None:
        self._session: Session | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hsm_core.remote.masked import mask_environment

        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
        self._settings = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        # The sweeper holds the same configuration, and is about to save it.
        mask_environment(config)
        self._check_existing()

    def _check_existing(self) -> None:
        """Leave a sweep that is there already as it is, to its multirun.yaml, unless this one may go on with it."""
        if self.config.hydra.launcher.get("dry_run") or not os.path.isdir(f"{self.config.hydra.sweep.dir}/.hsm"):
            return
        from hsm_core.exceptions import HsmError
        from hsm_core.launch import check_existing

        try:
            check_existing(self._settings, self.config, self.hydra_context, self.task_function)
        except HsmError as e:
            raise CompactHydraException(str(e)) from e

    def check(self) -> None:
        """Find what is wrong with the configuration, before anything is written. Raises CompactHydraException."""
        from hsm_core.exceptions import HsmError
        from hsm_core.launch import choose_sources, read_config
        from hsm_core.text import printable_lines

        try:
            choose_sources(read_config(self._settings, self.config, self.task_function))
        except HsmError as e:
            _remove_if_empty(str(self.config.hydra.sweep.dir))
            raise CompactHydraException(printable_lines(str(e))) from e

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return a JobReturn for each, in their order.

        A failed job raises when its `return_value` is asked for, as with Hydra's own launchers.
        """
        from hsm_core.exceptions import HsmError, Superseded, SweepStopped
        from hsm_core.launch import open_sweep, plan_only, stopped
        from hsm_core.text import printable_lines

        sweep = self._settings, self.config, self.hydra_context, self.task_function
        try:
            if self.config.hydra.launcher.dry_run:
                plan_only(*sweep, job_overrides, initial_job_idx)
            if self._session is None:
                self._session = open_sweep(*sweep, job_overrides)
                self._close_at_the_end(self._session)
            return self._session.run(job_overrides, initial_job_idx)
        except Superseded as e:
            if self._session is not None:
                self._session.abandon()
            raise CompactHydraException(printable_lines(str(e))) from e
        except SweepStopped as e:
            assert self._session is not None
            stopped(self._session, e)
        except HsmError as e:
            raise CompactHydraException(printable_lines(str(e))) from e
        except BaseException as e:
            if self._session is not None:
                self._session.close(SweepStopped(f"{type(e).__name__}: {e}"))
            raise

    def _close_at_the_end(self, session: Session) -> None:
        """Close the sweep at the end of the multirun; Hydra tells its callbacks, not its launchers.

        Where Hydra does not come to that end (1.3, when a sweeper raises), at our own.
        """
        self.hydra_context.callbacks.callbacks.append(_Closer(session))
        weakref.finalize(self, session.close)


def _remove_if_empty(directory: str) -> None:
    """Take back the directory that `hsm run` has reserved for a sweep which is not to be."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)


class _Closer:
    def __init__(self, session: Session) -> None:
        self._session = session

    def on_multirun_end(self, **kwargs: Any) -> None:
        self._session.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda **kwargs: None
        raise AttributeError(name)
