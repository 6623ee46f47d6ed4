"""`hydra/launcher=hsm`: Hydra's jobs become tasks of a sweep over many sources."""

from __future__ import annotations

import contextlib
import os
import sys
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
    from hsm_core.exceptions import HsmError
    from hsm_core.session import Session


class HsmLauncher(Launcher):
    """Opens a sweep with the first `launch` and keeps it to the end of the multirun."""

    def __init__(self, **options: Any) -> None:
        self._session: Session | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Read and check the configuration: what is wrong with it is told before the sweeper writes anything.

        Raises CompactHydraException.
        """
        from hsm_core.exceptions import HsmError
        from hsm_core.multirun import Multirun
        from hsm_core.preparation import choose_sources, read_config, warm_up
        from hsm_core.remote.masked import mask_environment

        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
        self.multirun = Multirun.of(config, hydra_context, task_function)
        self._started_by = os.environ.pop("HSM_STARTED_BY", None)
        settings: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        # The sweeper holds the same configuration, and is about to save it.
        mask_environment(config)
        try:
            self._hsm_config = read_config(settings, config, task_function)
            self._lanes = choose_sources(self._hsm_config)
            if not self._hsm_config.dry_run:
                warm_up(self._hsm_config, self._lanes, config)
                self._unused = weakref.finalize(self, self._lanes.stop, 0.0)
                from hsm_core.launch import check_existing

                # A sweep that is there is left as it is, to its multirun.yaml, unless this one may go on with it.
                check_existing(self._hsm_config, self.multirun)
        except HsmError as e:
            raise self._refusal(e) from e

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return a JobReturn for each, in their order.

        A failed job raises when its `return_value` is asked for, as with Hydra's own launchers.
        """
        from hsm_core.exceptions import HsmError, Superseded, SweepStopped
        from hsm_core.launch import open_sweep, plan_only, stopped
        from hsm_core.text import printable_lines

        sweep = self._hsm_config, self._lanes, self.multirun
        try:
            if self._hsm_config.dry_run:
                plan_only(*sweep, job_overrides, initial_job_idx)
            if self._session is None:
                self._session = open_sweep(*sweep, job_overrides)
                self._unused.detach()
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
            raise self._refusal(e) from e
        except BaseException as e:
            if self._session is not None:
                self._session.close(SweepStopped(f"{type(e).__name__}: {e}"))
            raise

    def _refusal(self, error: HsmError) -> BaseException:
        """What to raise: Hydra ends with exit code 1 whatever is wrong, commands of hsm with 2 for bad input."""
        from hsm_core.exceptions import BAD_INPUT
        from hsm_core.text import printable_lines

        if self._started_by is None or not isinstance(error, BAD_INPUT):
            return CompactHydraException(printable_lines(str(error)))
        if self._started_by == "run":
            with contextlib.suppress(OSError):  # where there is more in the folders above it, they stay
                os.removedirs(str(self.config.hydra.sweep.dir))
        sys.stderr.write(f"Error: {printable_lines(str(error))}\n")
        return SystemExit(2)

    def _close_at_the_end(self, session: Session) -> None:
        """Close the sweep at the end of the multirun; Hydra tells its callbacks, not its launchers.

        Where Hydra does not come to that end (1.3, when a sweeper raises), at our own.
        """
        self.hydra_context.callbacks.callbacks.append(_Closer(session))
        weakref.finalize(self, session.close)


class _Closer:
    def __init__(self, session: Session) -> None:
        self._session = session

    def on_multirun_end(self, **kwargs: Any) -> None:
        self._session.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda **kwargs: None
        raise AttributeError(name)
