"""What the sweeper gets back: a JobReturn per task, cheap until somebody looks inside."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict, read_write

from hsm_core import records
from hsm_core.exceptions import TaskError
from hsm_core.remote.compose import Composer
from hsm_core.remote.record import read
from hsm_core.state import TaskRecord
from hsm_core.task import Outcome
from hsm_core.text import inert


@dataclass(frozen=True)
class ReturnContext:
    """What is shared by the returns of one sweep."""

    directory: Path
    composer: Composer
    raise_on_failure: bool
    trusted: Callable[[str], bool]
    """whether pickles from the source of this name may be read"""


class TaskReturn(JobReturn):
    """Hydra's JobReturn of one task; record and configuration are read when they are asked for.

    A live JobReturn holds its whole configuration, some 90 KB. This one composes it again.
    """

    def __init__(self, task: TaskRecord, context: ReturnContext) -> None:
        assert task.attempt is not None and task.outcome is not None
        self._task = task
        self._outcome: Outcome = task.outcome
        self._source = task.attempt.source
        self._context = context
        self._configs: tuple[DictConfig, DictConfig] | None = None
        self._record: Mapping[str, Any] | None = None
        self.overrides: list[str] = [o for o in task.overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]
        self.status = JobStatus.COMPLETED if self._outcome.completed else JobStatus.FAILED

    def _read(self) -> Mapping[str, Any]:
        if self._record is None:
            name = self._outcome.record
            self._record = {} if name is None else read(self._context.directory / name)
        return self._record

    @property  # type: ignore[misc]
    def return_value(self) -> Any:
        """The task's return value; raises the task's exception when it failed.

        With `raise_on_failure: false` a failed task's value is None.
        """
        folder = self._context.directory / ".hsm" / "results"
        trusted = self._context.trusted(self._source)
        record = self._read()
        if self._outcome.completed:
            return records.return_value(record, folder, trusted)
        if not self._context.raise_on_failure:
            return None
        sys.stderr.write(f"Error executing job with overrides: {self.overrides}{os.linesep}")
        if not record.get("error"):
            raise TaskError(f"task {self._task.index + 1} failed ({self._cause}): {inert(self._outcome.message)}")
        raise records.exception(record, folder, trusted)

    @property
    def _cause(self) -> str:
        return "error" if self._outcome.cause is None else self._outcome.cause.value

    @property
    def cfg(self) -> DictConfig:  # type: ignore[override]
        """The configuration the task function got, composed again."""
        return self._composed()[0]

    @property
    def hydra_cfg(self) -> DictConfig:  # type: ignore[override]
        return self._composed()[1]

    @property
    def working_dir(self) -> str | None:  # type: ignore[override]
        return self._read().get("working_dir") or self._outcome.output_dir

    @property
    def task_name(self) -> str | None:  # type: ignore[override]
        return self._read().get("task_name")

    def _composed(self) -> tuple[DictConfig, DictConfig]:
        if self._configs is None:
            self._configs = compose(self._task, self._outcome.output_dir, self._context)
        return self._configs

    def __reduce__(self) -> Any:
        plain = {name: getattr(self, name) for name in ("overrides", "cfg", "hydra_cfg", "working_dir", "task_name")}
        value = (
            self.return_value
            if self._outcome.completed
            else records.exception(
                self._read(), self._context.directory / ".hsm" / "results", self._context.trusted(self._source)
            )
        )
        return _plain_return, ({**plain, "status": self.status, "_return_value": value},)


def _plain_return(fields: Mapping[str, Any]) -> JobReturn:
    return JobReturn(**fields)


def compose(task: TaskRecord, output_dir: str | None, context: ReturnContext) -> tuple[DictConfig, DictConfig]:
    """A task's own configuration and Hydra's, as Hydra's `run_job` hands them out."""
    config = context.composer.compose(task.overrides, task.index)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = output_dir
    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        instance.set_config(config)
        hydra_cfg = copy.deepcopy(instance.cfg)
    finally:
        instance.cfg = before
    assert isinstance(hydra_cfg, DictConfig)
    own = copy.deepcopy(config)
    with read_write(own), open_dict(own):
        del own["hydra"]
    return own, hydra_cfg
