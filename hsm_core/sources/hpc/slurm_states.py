"""Slurm's states, reasons and exit codes as ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hsm_core.sources.hpc.states import JobState, Phase

OOM_SIGNAL = 125
"""what Slurm gives as the signal of a step that the kernel ended for want of memory; no real signal is so high"""
_PHASES = {
    "PENDING": Phase.PENDING,
    "CONFIGURING": Phase.PENDING,
    "EXPEDITING": Phase.PENDING,
    "POWER_UP_NODE": Phase.PENDING,
    "RESV_DEL_HOLD": Phase.HELD,
    "REQUEUE_HOLD": Phase.HELD,
    "SPECIAL_EXIT": Phase.HELD,
    "RUNNING": Phase.RUNNING,
    "SUSPENDED": Phase.RUNNING,
    "STOPPED": Phase.RUNNING,
    "SIGNALING": Phase.RUNNING,
    "RESIZING": Phase.RUNNING,
    "COMPLETING": Phase.RUNNING,
    "STAGE_OUT": Phase.RUNNING,
    "COMPLETED": Phase.COMPLETED,
    "FAILED": Phase.FAILED,
    "TIMEOUT": Phase.TIMEOUT,
    "DEADLINE": Phase.TIMEOUT,
    "OUT_OF_MEMORY": Phase.OUT_OF_MEMORY,
    "NODE_FAIL": Phase.NODE_FAIL,
    "BOOT_FAIL": Phase.NODE_FAIL,
    "LAUNCH_FAILED": Phase.NODE_FAIL,
    "RECONFIG_FAIL": Phase.NODE_FAIL,
    "PREEMPTED": Phase.PREEMPTED,
    "REQUEUED": Phase.REQUEUED,
    "REQUEUE_FED": Phase.REQUEUED,
    "CANCELLED": Phase.CANCELLED,
}
"""by the states of squeue(1) and sacct(1), JOB STATE CODES; REVOKED, for one, runs on another cluster: UNKNOWN"""
_PLAIN = (
    "PENDING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "PREEMPTED",
    "REQUEUED",
    "CANCELLED",
)
"""states that their phase tells all of"""
_HELD = re.compile(r"JobHeld|JobHold|held$|held state$|requeued_held$|held_state$")


def phase_of(state: str, reason: str) -> tuple[Phase, str]:
    """The phase of a state, and the reason with the state in it where the phase tells less."""
    phase = _PHASES.get(state.rstrip("+"), Phase.UNKNOWN)
    if phase is Phase.PENDING and _HELD.search(reason):
        phase = Phase.HELD
    return phase, reason if state in _PLAIN else " ".join(filter(None, [state, reason]))


def dropped(elements: Iterable[str], told: Mapping[str, JobState]) -> dict[str, JobState]:
    """Those of these elements that were cancelled while they waited; they must never have started.

    Of such a one Slurm (22.05) forgets all at once, and neither squeue nor `scontrol show job` nor sacct knows it. That
    of an array none is left it shows as the end of the array, and of others by those that still wait.
    """
    waiting = {name.partition("_")[0] for name, state in told.items() if state.phase in (Phase.PENDING, Phase.HELD)}
    found = {}
    for element in elements:
        job = element.partition("_")[0]
        array = told.get(job)
        if array is not None and array.phase is Phase.CANCELLED:
            found[element] = replace(array, element=element)
        elif job in waiting:
            found[element] = JobState(element, Phase.CANCELLED)
    return found


def exit_of(text: str, phase: Phase) -> tuple[int | None, int | None]:
    """Exit code and signal of `3:0` and `0:9`; only what ended by itself has a code of 0."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None:
        return None, None
    code, signal = int(found[1]), int(found[2])
    counts = code or (not signal and phase in (Phase.COMPLETED, Phase.FAILED))
    return code if counts else None, signal or None


def exit_of_status(status: int, phase: Phase) -> tuple[int | None, int | None]:
    """The same of a status as wait(2) gives it."""
    return exit_of(f"{status >> 8 if not status & 127 else 0}:{status & 127}", phase)
