"""Slurm: jobs are described as submitit does it; one `squeue` tells of all, and `sacct` where there is one."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Collection, Mapping, Sequence

from hsm_core.exceptions import Rejected, SourceError, Unavailable
from hsm_core.sources.hpc import scheduler, translation
from hsm_core.sources.hpc import slurm_text as text
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.scheduler import Full, Job, Unsure
from hsm_core.sources.hpc.site import Site
from hsm_core.sources.hpc.slurm_refusals import Refusal, question_refused, refusal_words, submission_refused
from hsm_core.sources.hpc.slurm_states import dropped
from hsm_core.sources.hpc.states import JobState, settled

_ERRORS = {Refusal.REJECTED: Rejected, Refusal.AMBIGUOUS: Unsure, Refusal.OVER_LIMIT: Full}
"""by what sbatch said"""


class Slurm:
    """The Slurm that the commands of a site talk to."""

    system = "slurm"

    def __init__(self, site: Site) -> None:
        self._site = site
        self.calls = 0
        self._config = text.SlurmConfig()

    def start(self) -> None:
        self._config = text.parse_config(self._asked(text.CONFIG_COMMAND))
        if self._config.max_array_size < 2:
            raise SourceError("this cluster has no job arrays (MaxArraySize); hsm needs them")

    def facts(self) -> str:
        accounting = "with" if self._config.accounting else "without"
        return f"Slurm {self._config.version}, arrays of up to {self.largest_array()}, {accounting} accounting"

    def largest_array(self) -> int:
        # A quarter of the controller's room: it is everybody's.
        return max(1, min(self._config.max_array_size - 1, self._config.max_job_count // 4))

    def submit(self, job: Job) -> str:
        script = os.path.join(job.folder, "job.sh")
        self._site.put(script, self._script(job))
        environ = text.submission_environment(self._site.environ, job.resources)
        self.calls += 1
        done = self._site.run(["sbatch", script], environ, scheduler.PATIENCE)
        found = text.parse_submitted(done.out) if done.code == 0 else None
        if found is not None:
            return found
        words = refusal_words(done.err) or f"sbatch did not answer within {scheduler.PATIENCE:g} s"
        refusal = submission_refused(-1 if done.code == 0 else done.code, done.err)
        raise _ERRORS.get(refusal, Unavailable)(f"sbatch: {words}")

    def _script(self, job: Job) -> str:
        from submitit import SlurmExecutor

        class Described(SlurmExecutor):
            @classmethod
            def affinity(cls) -> int:
                return 1  # whether there is an srun was looked at where the scheduler is

        executor = Described(job.folder)
        parameters = translation.slurm(job.resources)
        further = {**parameters.pop("additional_parameters"), ("requeue" if job.requeue else "no-requeue"): True}
        if job.signal_delay:
            further["signal"] = f"B:USR2@{job.signal_delay}"  # without B it is for steps, and there is none
        executor.update_parameters(
            **parameters,
            job_name=job.token,
            wckey=None,
            setup=["trap '' USR2", *job.lead],
            dependency=job.dependency,
            array_parallelism=job.count,
            additional_parameters=further,
        )
        executor.parameters["map_count"] = job.count
        line = f'exec {shlex.join(job.command)} "$SLURM_ARRAY_TASK_ID" "${{SLURM_RESTART_COUNT-0}}"'
        made: str = executor._make_submission_file_text(line, job.token)
        return made

    def find(self, token: str) -> str | None:
        found = text.parse_found(self._asked(text.find_command(token, self._site.user)), token)
        return found[-1] if found else None

    def states(self, batches: Collection[Batch], ended: Collection[str]) -> Mapping[str, JobState]:
        names = {str(batch.job): batch.token for batch in batches}
        queue = text.parse_queue(self._asked(text.queue_command(names)), names)
        elements = {self.element(str(b.job), i): self.log(b, i) for b in batches for i in range(len(b.attempts))}
        missing = [e for e in elements if e not in queue and e in ended]
        accounting: Mapping[str, JobState] = {}
        if missing and self._config.accounting:
            with contextlib.suppress(Unavailable):  # it may be away for days, and files tell nearly all of it
                accounting = text.parse_accounting(self._asked(text.accounting_command(missing)), names)
        # What has started has its output there, which Slurm makes before anything else.
        unknown = {elements[e]: e for e in elements if e not in queue and e not in accounting}
        waited = [unknown[path] for path in self._site.absent(list(unknown))]
        return settled(elements, queue, {**accounting, **dropped(waited, {**accounting, **queue})})

    def element(self, job: str, index: int) -> str:
        return f"{job}_{index}"

    def log(self, batch: Batch, index: int) -> str:
        return os.path.join(batch.folder, f"{batch.job}_{index}_0_log.err")

    def cancel(self, elements: Collection[str]) -> None:
        self._asked(text.cancel_command(elements))

    def _asked(self, argv: Sequence[str]) -> str:
        """What a command answers; nothing where it knows nothing of what it was asked for. Raises Unavailable."""
        self.calls += 1
        done = self._site.run(argv, text.environment(self._site.environ), scheduler.PATIENCE)
        if done.code == 0:
            return done.out
        # Of one that did not answer in time nothing counts.
        said = "" if done.code is None else done.err
        if question_refused(done.code, said) in (Refusal.UNKNOWN_ID, Refusal.FINISHED, Refusal.NO_ACCOUNTING):
            return done.out
        raise Unavailable(f"{argv[0]}: {refusal_words(said) or f'no answer within {scheduler.PATIENCE:g} s'}")
