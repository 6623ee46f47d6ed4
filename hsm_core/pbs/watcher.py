"""Knows the states of all jobs, by one call of qstat at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping

from submitit.core import core, logger

from hsm_core.pbs import command, status, text
from hsm_core.pbs.status import Dialect, Phase, State

GRACE = 60.0
"""seconds between two answers of a server that does not know a job, and did not in between, until it is given up"""


class PbsInfoWatcher(core.InfoWatcher):
    """Shared by all jobs of a process. A server that does not answer changes nothing of what is known."""

    def __init__(self, delay_s: int = 60) -> None:
        super().__init__(delay_s)
        self._dialect = Dialect()
        self._states: dict[str, State] = {}
        self._missing: dict[str, tuple[float, float]] = {}
        """when the server first and last answered without knowing of a job, by `time.monotonic`"""

    def clear(self) -> None:
        super().clear()
        self._states, self._missing = {}, {}

    def state(self, job_id: str, mode: str = "standard") -> State:
        """What PBS says of a job; an unknown phase before it was asked, and where it does not know."""
        self.get_info(job_id, mode)
        return self._states.get(job_id, _UNKNOWN)

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        return self.state(job_id, mode).phase.name

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Whether the job has ended, well or not. One that the server does not know any more has, after `GRACE`.

        It does not follow that it did anything: that tells its result.
        """
        if self.state(job_id, mode).ended:
            return True
        first, last = self._missing.get(job_id, (0.0, 0.0))
        return job_id in self._missing and last - first >= GRACE

    def _make_command(self) -> list[str] | None:
        jobs = self._registered - self._finished
        return status.command(jobs, self._dialect) if jobs else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """What an answer says of each job, for `get_info`: State, and Reason, Node, ExitCode where there are any."""
        said = string.decode("utf-8", "replace") if isinstance(string, bytes) else string
        return _infos(status.read(text.Answer(["qstat"], 0, said, ""), self._dialect))

    def update(self) -> None:
        """Ask of all jobs that have not ended."""
        asked = self._registered - self._finished
        if asked:
            self._num_calls += 1
            try:
                answer, self._dialect = command.ask(asked, self._dialect)
                self._output = answer.out.encode()
                self._learn(asked, status.read(answer, self._dialect))
            except text.PbsError as e:
                logger.get_logger().warning(f"{e}; the states of jobs are as they were last told.")
        self._last_status_check = time.time()
        self._finished |= {job_id for job_id in asked if self.is_done(job_id, mode="cache")}

    def _learn(self, asked: set[str], told: Mapping[str, State]) -> None:
        now = time.monotonic()
        for job_id in asked:
            state = status.of(job_id, told)
            if state is None:
                # It may have ended, well or not; or a server that was restored does not remember it.
                self._missing[job_id] = (self._missing.get(job_id, (now, now))[0], now)
                state = _UNKNOWN
            else:
                self._missing.pop(job_id, None)
            self._states[job_id] = state
        self._info_dict.update(_infos({job_id: self._states[job_id] for job_id in asked}))


_UNKNOWN = State(Phase.UNKNOWN)


def _infos(states: Mapping[str, State]) -> dict[str, dict[str, str]]:
    infos = {}
    for job_id, state in states.items():
        told = {
            "JobID": job_id,
            "State": state.phase.name,
            "Reason": state.reason,
            "NodeList": state.node,
            "ExitCode": state.exit_code,
            "Signal": state.signal,
            "Restarts": state.restarts or None,
        }
        infos[job_id] = {name: str(value) for name, value in told.items() if value not in (None, "")}
    return infos
