"""What Slurm writes into a job's output tells how it ended."""

from __future__ import annotations

import pytest

from hsm_core.sources.hpc.slurm_log import phase_of_log
from hsm_core.sources.hpc.states import Phase
from tests.hpc.recordings import TESTBED, answer


@pytest.mark.parametrize(
    ("name", "command", "phase"),
    [
        ("21_time_limit.txt", "head limit.out", Phase.TIMEOUT),
        ("22_memory.txt", "cat mem.out", Phase.OUT_OF_MEMORY),
        ("25_out_of_memory_cgroup.txt", "cat mem.out", Phase.OUT_OF_MEMORY),
        ("20_ended.txt", "head noshell.out", Phase.CANCELLED),
    ],
)
def test_recorded(name: str, command: str, phase: Phase) -> None:
    assert phase_of_log(answer(TESTBED / name, command).out) is phase


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("", None),
        ("Traceback (most recent call last):\nMemoryError: out of memory\n", None),
        ("hello DUE TO TIME LIMIT\n", None),
        ("slurmstepd-n1: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-25T13:48:00 ***\n", Phase.CANCELLED),
        ("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-25T13:48:00 DUE TO PREEMPTION ***\n",
         Phase.PREEMPTED),
        ("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-25T13:48:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG "
         "FOR DETAILS ***\n", Phase.NODE_FAIL),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch. Some of the step tasks have been OOM Killed."
         "\n",
         Phase.OUT_OF_MEMORY),
        ("restart=\nslurmstepd-n1: error: *** JOB 13 ON n1 CANCELLED AT 2026-11-25T13:43:03 DUE TO JOB REQUEUE ***\n",
         Phase.REQUEUED),
        ("slurmstepd-n1: error: *** JOB 13 ON n1 CANCELLED AT 2026-11-25T13:43:03 DUE TO TIME LIMIT ***\n"
         "slurmstepd-n1: error: *** JOB 13 ON n1 CANCELLED AT 2026-11-25T13:43:03 DUE TO JOB REQUEUE ***\n"
         "slurmstepd-n1: error: *** JOB 13 ON n1 CANCELLED AT 2026-11-25T14:43:03 ***\n", Phase.CANCELLED),
    ],
)  # fmt: skip
def test_other_texts(text: str, phase: Phase | None) -> None:
    assert phase_of_log(text) is phase
