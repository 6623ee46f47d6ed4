"""Places where a launcher can be made to die, so that tests can show what holds when it does.

`HSM_CRASHPOINT=submitted` kills the launcher when it comes to that place, `HSM_CRASHPOINT=submitted:3`
when it comes there for the third time. It dies as of `kill -9`: nothing is cleaned up, flushed or said.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    # a directory becomes a sweep
    "claimed",
    "owner_written",
    "owned",
    "outputs_cleared",
    "journal_cleared",
    "frozen",
    "registered",
    "begun",
    # an earlier launcher's sweep is gone on with
    "journal_copied",
    "journal_opened",
    "processes_ended",
    "reopened",
    "adopted",
    # tasks are run; the first three are passed with every event
    "event_decided",
    "event_journaled",
    "event_told",
    "half_file_written",
    "sources_starting",
    "intent_journaled",
    "intents_synced",
    "submitted",
    "batch_written",
    "array_submitted",
    "outcome_decided",
    "outcome_journaled",
    "outcomes_synced",
    "command_answered",
    "ended_early",
    # the sweep is closed and given back
    "sources_stopped",
    "end_journaled",
    "end_synced",
    "reports_written",
    "tidied",
    "journal_closed",
    "release_written",
    "released",
)
"""every place, by what has just been done there"""


def crashpoint(name: str) -> None:
    """Die here, if that was asked for."""
    if name == _armed:
        _pass()


def arm(point: str) -> None:
    """Die at this place, `<name>` or `<name>:<pass>`; nowhere when it is empty. Raises ValueError."""
    global _armed, _left
    name, _, passes = point.partition(":")
    if name and name not in POINTS:
        raise ValueError(f"HSM_CRASHPOINT={point}: there is no '{name}'; there are {', '.join(POINTS)}")
    _armed, _left = name or None, int(passes or 1)


def _pass() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


_armed: str | None = None
_left = 0
arm(os.environ.get("HSM_CRASHPOINT", ""))
