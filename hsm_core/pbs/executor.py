"""Submits functions to PBS: `submitit.AutoExecutor(folder, cluster="pbs")`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from submitit.core import core, job_environment, utils
from submitit.core.core import R

from hsm_core.pbs import command, script, text
from hsm_core.pbs.script import Options
from hsm_core.pbs.watcher import PbsInfoWatcher

NO_LIMIT_MIN = 60 * 24 * 365
"""minutes; what submitit takes for the time limit of a job that asked for none"""


class PbsSubmissionError(text.PbsError, utils.FailedSubmissionError):
    """qsub refused a submission; `refusal` says what can be done about it."""


class PbsJob(core.Job[R]):
    """One job or subjob of PBS, by its element id: `53.server`, `70.server_2`."""

    _cancel_command = "qdel"
    watcher = PbsInfoWatcher(delay_s=60)

    def cancel(self, check: bool = True) -> None:
        """Delete the job; one that has ended stays as it is.

        Raises PbsError where PBS refuses, if `check`.
        """
        answer = command.run(text.cancel_command([self.job_id]))
        if text.refusal(answer) in (None, text.Refusal.FINISHED, text.Refusal.UNKNOWN_ID) or not check:
            return
        failed = text.error(answer, f"job {self.job_id} could not be cancelled")
        assert failed is not None
        raise failed

    def _interrupt(self, timeout: bool = False) -> None:
        """Send what a job gets before its time limit; without `timeout`, what it gets when preempted."""
        name = f"SIG{job_environment.JobEnvironment.USR_SIG}" if timeout else "SIGTERM"
        answer = command.run(text.signal_command(self.job_id, name))
        failed = text.error(answer, f"job {self.job_id} could not be signalled")
        if failed is not None:
            raise failed


class PbsExecutor(core.PicklingExecutor):
    """Runs functions as jobs of OpenPBS or PBS Professional.

    The folder must be seen by the compute nodes. Parameters are the fields of `hsm_core.pbs.script.Options`. `python`
    is the shell command for the interpreter there, by default the one that runs here. Several functions
    (`map_array`, `submit_array`, `batch`) become one job array.
    """

    job_class = PbsJob

    def __init__(
        self,
        folder: str | Path,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        super().__init__(folder, max_num_timeout=max_num_timeout, max_pickle_size_gb=max_pickle_size_gb)
        self.python = shlex.quote(sys.executable) if python is None else python
        if self.affinity() < 0:
            raise RuntimeError("qsub, qstat and pbsnodes are not all on PATH; is PBS installed on this host?")

    @classmethod
    def affinity(cls) -> int:
        # Grid Engine has a qsub and a qstat too, but no pbsnodes.
        return 2 if all(map(shutil.which, ("qsub", "qstat", "pbsnodes"))) else -1

    @classmethod
    def _equivalence_dict(cls) -> core.EquivalenceDict:
        return {
            "name": "job_name",
            "timeout_min": "walltime",
            "mem_gb": "mem",
            "nodes": "nodes",
            "cpus_per_task": "cpus_per_task",
            "gpus_per_node": "gpus_per_node",
            "tasks_per_node": "tasks_per_node",
        }

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return {field.name for field in fields(Options)}

    def _convert_parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        """From submitit's shared names, minutes and GB to ours, seconds and MiB."""
        converted: dict[str, Any] = super()._convert_parameters(params)
        if "timeout_min" in params:
            converted["walltime"] = round(params["timeout_min"] * 60)
        if "mem_gb" in params:
            converted["mem"] = round(params["mem_gb"] * 1024)
        return converted

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        """Set parameters. Raises ValueError for unknown ones, with a list of all, and for values PBS can't take."""
        script.options({**self.parameters, **kwargs})
        super()._internal_update_parameters(**kwargs)

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[utils.DelayedSubmission]
    ) -> list[core.Job[Any]]:
        """Submit all as one job: an array, where there is more than one."""
        seconds = script.options(self.parameters).seconds
        timeout_min = seconds / 60 if seconds is not None else NO_LIMIT_MIN
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        pickles = []
        for delayed in delayed_submissions:
            pickles.append(folder / f"{uuid.uuid4().hex}.pkl")
            delayed.set_timeout(timeout_min, self.max_num_timeout)  # type: ignore[arg-type]  # minutes have parts
            delayed.dump(pickles[-1])
            if len(pickles) == 1:
                self._check_size(pickles[0], len(delayed_submissions))
        try:
            jobs = self._submit(self._submitit_command_str, len(pickles))
        except text.PbsError as e:
            if e.refusal is not text.Refusal.AMBIGUOUS:  # a job that was taken all the same needs them
                for path in pickles:
                    path.unlink()
            raise
        for job, path in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(path, "submitted_pickle")
        return jobs

    def _check_size(self, first: Path, count: int) -> None:
        size = first.stat().st_size / 2**30
        if count * size > self.max_pickle_size_gb:
            first.unlink()
            raise RuntimeError(
                f"{count} functions with arguments of about {size:.2f} GB each are more than max_pickle_size_gb="
                f"{self.max_pickle_size_gb}; raise it if that is what you want"
            )

    @property
    def _submitit_command_str(self) -> str:
        return f"{self.python} -u -m submitit.core._submit {shlex.quote(str(self.folder))}"

    def _num_tasks(self) -> int:
        return script.options(self.parameters).processes

    def _submit_command(self, command: str) -> core.Job[Any]:
        [job] = self._submit(command, 1)
        return job

    def _submit(self, shell_command: str, count: int) -> list[core.Job[Any]]:
        """Have a shell command run `count` times; by its environment it knows which one it is.

        Returns the jobs. Raises PbsSubmissionError where qsub refuses.
        """
        uid = uuid.uuid4().hex
        path = self._script_path(uid)
        # The script may hold variables that are nobody else's business.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self._make_submission_file_text(shell_command, uid))
        self._throttle()
        self._last_job_submitted = time.time()
        try:
            native = text.submitted_id(command.run(self._make_submission_command(path, count)))
        except text.PbsError as e:
            if e.refusal is not text.Refusal.AMBIGUOUS:
                path.unlink()
            raise PbsSubmissionError(str(e), e.refusal) from None
        tasks, names = list(range(self._num_tasks())), [text.member(native, index) for index in range(count)]
        jobs: list[core.Job[Any]] = [self.job_class(folder=self.folder, job_id=name, tasks=tasks) for name in names]
        # The job may be reading the script by now: it stays where it is.
        link = jobs[0].paths.submission_file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        return jobs

    def _script_path(self, uid: str) -> Path:
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f".submission_file_{uid}.sh"

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return script.script_text(script.options(self.parameters), command, self.folder, self._script_path(uid))

    def _make_submission_command(self, submission_file_path: Path, count: int = 1) -> list[str]:
        return script.qsub_command(script.options(self.parameters), submission_file_path, count)

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        said = string.decode("utf-8", "replace") if isinstance(string, bytes) else string
        return text.element(text.submitted_id(text.Answer(["qsub"], 0, said, "")))
