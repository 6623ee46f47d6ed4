"""What a function finds out about its job while it runs there, and how it goes on in a later one.

A function is told to checkpoint by SIGUSR2 (or what SUBMITIT_PREEMPT_SIGNAL names), which the job's script sends before
the time limit, and by SIGTERM, which PBS sends before it kills: to preempt, to delete, at the time limit. A preempted
job is queued again by PBS, under its id. At the time limit it is for the job to ask for that, by qrerun, which servers
keep for their operators unless told otherwise.
"""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from submitit.core import job_environment, logger, utils
from submitit.core.job_environment import SignalHandler

from hsm_core.pbs import command, text


class PbsJobEnvironment(job_environment.JobEnvironment):
    """The job this process runs in."""

    _env: ClassVar[dict[str, str]] = {
        "job_id": "PBS_JOBID",
        "num_tasks": "SUBMITIT_PBS_NTASKS",
        "num_nodes": "SUBMITIT_PBS_NODES",
        "global_rank": "SUBMITIT_PBS_RANK",
    }

    @property
    def job_id(self) -> str:
        """As the submitter's PbsJob has it: `53.server`, `70.server_2`."""
        return text.element(self.raw_job_id)

    @property
    def array_job_id(self) -> str | None:
        """The array's, without the index; None for a job that is in none."""
        return self.job_id.rsplit("_", 1)[0] if self.array_task_id is not None else None

    @property
    def array_task_id(self) -> str | None:
        return os.environ.get("PBS_ARRAY_INDEX")

    @property
    def node(self) -> int:
        """Which of the job's nodes this task runs on."""
        return self.global_rank // (self.num_tasks // self.num_nodes)

    @property
    def local_rank(self) -> int:
        return self.global_rank % (self.num_tasks // self.num_nodes)

    @property
    def hostnames(self) -> list[str]:
        """The job's nodes, each once, in the order of PBS_NODEFILE."""
        try:
            with open(os.environ["PBS_NODEFILE"], encoding="utf-8") as file:
                names = dict.fromkeys(line.strip() for line in file if line.strip())
        except (KeyError, FileNotFoundError):  # only the first node has the file
            return [self.hostname]
        return list(names)

    def _handle_signals(self, paths: utils.JobPaths, submission: utils.DelayedSubmission) -> None:
        handler = SignalHandler(self, paths, submission)
        signal.signal(signal.SIGCONT, handler.bypass)
        signal.signal(signal.SIGTERM, handler.checkpoint_and_exit)
        signal.signal(self._usr_sig(), handler.checkpoint_and_try_requeue)

    def _requeue(self, countdown: int) -> None:
        answer = command.run(text.rerun_command(self.job_id))
        if text.refusal(answer) is None:
            logger.get_logger().info(f"Requeued job {self.job_id} ({countdown} remaining timeouts)")
            return
        raise utils.UncompletedJobError(
            f"Job {self.job_id} could not be queued again: {answer.said}. PBS keeps qrerun for its operators and "
            f"managers. What was checkpointed is in {self.paths.submitted_pickle}; it goes on from there with\n"
            "    rest = job.submission()\n"
            "    executor.submit(rest.function, *rest.args, **rest.kwargs)"
        )
