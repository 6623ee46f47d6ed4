"""How an attempt ended that left no result of its own, by what its scheduler tells."""

from __future__ import annotations

from hsm_core.sources.hpc.resources import Resources
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.sources.hpc.words import shortage_facts, time_advice
from hsm_core.task import Cause, Outcome


def verdict(state: JobState, hint: Phase | None, said: str, resources: Resources) -> Outcome:
    """The outcome of an attempt whose job is gone in this state.

    `hint`: how it ended by its own output; it counts where the scheduler does not know. `said`: the end of that output.
    """
    phase = state.phase
    if hint is not None and (phase in (Phase.UNKNOWN, Phase.FAILED, Phase.CANCELLED)):
        phase = hint
    job = f"job {state.element}"
    facts = {"exit_code": state.exit_code, "signal": state.signal, "peak_memory": state.peak, "host": state.node}
    if phase is Phase.TIMEOUT:
        return Outcome.failed(Cause.TIMEOUT, f"{job} was ended at its time limit; {time_advice(resources)}", **facts)
    if phase is Phase.OUT_OF_MEMORY:
        return Outcome.failed(Cause.OOM, f"out of memory ({job}{shortage_facts(resources, state.peak)})", **facts)
    if phase is Phase.PREEMPTED:
        return Outcome.failed(Cause.PREEMPTED, f"{job} was preempted: others needed its node", **facts)
    if phase is Phase.NODE_FAIL:
        return Outcome.failed(Cause.LOST, f"the node of {job} failed{_of(state)}", **facts)
    if phase is Phase.CANCELLED:
        by = f" ({state.reason})" if state.reason else ""
        return Outcome.failed(Cause.CANCELLED, f"{job} was cancelled in the scheduler{by}", **facts)
    if phase is Phase.UNKNOWN:
        words = f"the scheduler no longer knows {job}, and it left no result"
        return Outcome.failed(Cause.LOST, f"{words}{_told(said)}", **facts)
    how = f"with exit code {state.exit_code}" if state.signal is None else f"by signal {state.signal}"
    return Outcome.failed(Cause.LOST, f"{job} ended {how} and left no result{_told(said)}", **facts)


def _of(state: JobState) -> str:
    return f" ({state.node})" if state.node else ""


def _told(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return f"; it said: {lines[-1].strip()[:300]}" if lines else ""
