"""What Slurm writes into the output of a job that it ends: without accounting nothing else tells why, minutes later."""

from __future__ import annotations

import re

from hsm_core.sources.hpc.states import Phase

_ENDS = (
    (r"DUE TO TIME LIMIT", Phase.TIMEOUT),
    (r"DUE TO PREEMPTION", Phase.PREEMPTED),
    (r"DUE TO NODE FAILURE", Phase.NODE_FAIL),
    (r"DUE TO JOB REQUEUE", Phase.REQUEUED),
    (r"exceeded memory limit|Exceeded job memory limit|[Oo]ut [Oo]f [Mm]emory|oom[-_]kill event", Phase.OUT_OF_MEMORY),
    (r"(?:JOB|STEP) \S+ ON \S+ CANCELLED AT", Phase.CANCELLED),
)
_LINE = re.compile(r"^(?:slurmstepd\S*|srun): error: .*$", re.MULTILINE)


def phase_of_log(text: str) -> Phase | None:
    """How a job ended by the last start of it that its output (standard error) tells of; None: it tells nothing.

    It is a hint, for what has no result record: the job writes into the same file. Want of memory comes before the
    cancelling that follows it.
    """
    lines = _LINE.findall(text)
    last = max((i + 1 for i, line in enumerate(lines[:-1]) if "DUE TO JOB REQUEUE" in line), default=0)
    return next((phase for words, phase in _ENDS if any(re.search(words, line) for line in lines[last:])), None)
