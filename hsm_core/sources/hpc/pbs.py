"""PBS, OpenPBS or PBS Professional: jobs are described as by our plugin of submitit, one `qstat` tells of all."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hsm_core.exceptions import Rejected, SourceError, Unavailable
from hsm_core.pbs import command, status, text
from hsm_core.pbs.text import Answer, PbsError, Refusal
from hsm_core.sources.hpc import scheduler, translation
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.scheduler import Full, Job, Unsure
from hsm_core.sources.hpc.site import Site
from hsm_core.sources.hpc.states import JobState, Phase

MOST = 1000
"""elements of an array, unless the server allows less (max_array_size)"""

_ERRORS = {
    Refusal.REJECTED: Rejected,
    Refusal.NOT_ALLOWED: Rejected,
    Refusal.AMBIGUOUS: Unsure,
    Refusal.OVER_LIMIT: Full,
}
"""by what qsub said"""
_GONE = (Refusal.UNKNOWN_ID, Refusal.FINISHED)


class Pbs:
    """The PBS server that the commands of a site talk to."""

    system = "pbs"

    def __init__(self, site: Site) -> None:
        self._site = site
        self.calls = 0
        self._dialect = status.Dialect()
        self._most = MOST
        self._version = ""

    def start(self) -> None:
        answer = self._run(["qstat", "-B", "-f", "-F", "json"])
        if answer.code == 2:  # an old qstat has no JSON
            answer = self._run(["qstat", "-B", "-f"])
        failed = text.error(answer, "PBS can't be asked")
        if failed is not None:
            raise SourceError(str(failed))
        said = dict(re.findall(r'^\s*"?(\w+)"?\s*[:=]\s*"?([^",\n]*)', answer.out, re.MULTILINE))
        self._version = said.get("pbs_version", "")
        most = said.get("max_array_size", "")
        self._most = min(MOST, int(most)) if most.isdecimal() else MOST

    def facts(self) -> str:
        return f"PBS {self._version}, arrays of up to {self._most}"

    def largest_array(self) -> int:
        return self._most

    def submit(self, job: Job) -> str:
        from hsm_core.pbs import script

        parameters = {
            **translation.pbs(job.resources),
            "job_name": text.name_for(job.token),
            "rerunnable": job.requeue,
            "dependency": job.dependency,
            "setup": [*job.lead],
            "signal_delay_s": job.signal_delay,
        }
        try:
            options = script.options(parameters)
        except ValueError as e:
            raise Rejected(str(e)) from e
        folder, path = Path(job.folder), Path(job.folder, "job.sh")
        line = f'{shlex.join(job.command)} "${{PBS_ARRAY_INDEX-0}}"'
        self._site.put(str(path), script.script_text(options, line, folder, path))
        answer = self._run(script.qsub_command(options, path, job.count))
        try:
            return text.submitted_id(answer)
        except PbsError as e:
            raise _ERRORS.get(e.refusal, Unavailable)(str(e)) from e

    def find(self, token: str) -> str | None:
        name = text.name_for(token)
        found = self._found(name, history=True)
        if found is None:
            found = self._found(name, history=False)
        return found[-1] if found else None

    def _found(self, name: str, *, history: bool) -> list[str] | None:
        try:
            return text.found_ids(self._run(text.find_command(name, history)))
        except PbsError as e:
            raise Unavailable(str(e)) from e

    def states(self, batches: Collection[Batch], ended: Collection[str]) -> Mapping[str, JobState]:
        elements = [self.element(str(b.job), i) for b in batches for i in range(len(b.attempts))]
        answer, self._dialect = command.ask(elements, self._dialect, self._run)
        try:
            told = status.read(answer, self._dialect)
        except PbsError as e:
            raise Unavailable(str(e)) from e
        return {element: _state(element, status.of(element, told)) for element in elements}

    def element(self, job: str, index: int) -> str:
        return text.member(job, index)

    def log(self, batch: Batch, index: int) -> str:
        return os.path.join(batch.folder, f"{self.element(str(batch.job), index)}_0_log.err")

    def cancel(self, elements: Collection[str]) -> None:
        answer = self._run(text.cancel_command(elements))
        if text.refusal(answer) not in (None, *_GONE):
            raise Unavailable(str(text.error(answer, "PBS did not delete jobs")))

    def _run(self, argv: Sequence[str]) -> Answer:
        self.calls += 1
        environ = {**self._site.environ, "PATH": command.search_path(self._site.environ)}
        done = self._site.run(argv, environ, scheduler.PATIENCE)
        return Answer(argv, done.code, done.out, done.err)


def _state(element: str, told: status.State | None) -> JobState:
    if told is None:
        return JobState(element, Phase.UNKNOWN)
    phase = Phase[told.phase.name]
    return JobState(element, phase, told.reason, told.node, told.exit_code, told.signal, told.restarts, told.peak)
