"""Every error hsm raises, named by what the caller can do about it.

HsmError
  ConfigError          the configuration is wrong; nothing was started
  SelectionError       --sources names something that does not exist
  SnapshotError        the code or configuration could not be frozen
  SweepError           about one sweep directory
    SweepExists        the directory holds a sweep already
    SweepNotFound      no sweep of that id
    SweepBusy          another launcher owns the sweep
    SweepNotBegun      a detached launcher ended before its sweep began
    SweepChanged       a resume whose configuration differs from the recorded one
    Superseded         a newer launcher took the sweep over; this one must stop
    JournalError       the journal is corrupt, torn in the middle or of a newer format
  SweepStopped         the sweep ended before all tasks did
    SweepInterrupted   by a signal or `hsm cancel`
    FailFast           by `fail_fast`
    NoSourceLeft       no source can take the remaining tasks
    Unwritable         what happens can't be written down: the disk is full or broken
  SourceError          a source could not be started
    Rejected           the source will never take this submission
    Unavailable        the source can't take it now: later, or elsewhere
    NoRoom             a disk is full, at home or there
    NoRsync            files can't be moved by rsync: by SFTP they can
  TaskError            a task failed and its own exception can't be rebuilt here
"""

from __future__ import annotations

import signal
from collections.abc import Sequence


class HsmError(Exception):
    """Base of all errors of hsm. Its text is meant for people."""


class ConfigError(HsmError):
    """The configuration is wrong; nothing was started.

    `problems` holds all that was found, one line each, with its place.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        head = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{head} in the configuration of hsm:\n" + "\n".join(f"  {p}" for p in self.problems))


class SelectionError(HsmError):
    """`--sources` names something that does not exist, twice, or of another type."""


class SnapshotError(HsmError):
    """The code or configuration could not be frozen for the sweep."""


class SweepError(HsmError):
    """Something is wrong with one sweep or its directory."""


class SweepExists(SweepError):
    """The directory holds a sweep already."""


class SweepNotFound(SweepError):
    """No sweep of that id is known."""


class SweepBusy(SweepError):
    """Another launcher owns the sweep."""


class SweepNotBegun(SweepError):
    """A detached launcher ended before its sweep began. `said` is all that it printed.

    `exit_code` is the launcher's, as a shell tells it: 128 and more for a signal.
    """

    def __init__(self, said: str, returncode: int) -> None:
        self.said = said
        self.exit_code = returncode if returncode >= 0 else 128 - returncode
        super().__init__(f"The launcher ended with exit code {self.exit_code} before the sweep began.")


class SweepChanged(SweepError):
    """A resume whose configuration differs from the recorded one."""


class Superseded(SweepError):
    """A newer launcher took the sweep over; this one must stop without writing."""


class JournalError(SweepError):
    """The journal is corrupt, or of a newer format than this hsm reads."""


class SweepStopped(HsmError):
    """The sweep ended before all of its tasks did; it can be completed later.

    `status` is how the journal calls that; `exit_code` is the launcher's then.
    """

    status = "stopped"
    exit_code = 1


class SweepInterrupted(SweepStopped):
    """The sweep was ended by a signal or by `hsm cancel`. `signum` is 0 for the latter.

    `leave`: what can go on without a launcher is to be left running. `at_once` is True once a
    second signal asked not to wait for the tasks' grace time.
    """

    status = "interrupted"

    def __init__(self, message: str, signum: int = 0, *, leave: bool = False) -> None:
        self.signum = signum
        self.exit_code = 128 + signum if signum else 1
        self.leave = leave
        self.at_once = False
        super().__init__(message)

    @classmethod
    def by(cls, signum: int, *, leave: bool = False) -> SweepInterrupted:
        """The interrupt that a signal makes."""
        return cls(f"the sweep was interrupted by {signal.Signals(signum).name}", signum, leave=leave)


class FailFast(SweepStopped):
    """As many tasks failed as `fail_fast` allows."""


class NoSourceLeft(SweepStopped):
    """No source can take the remaining tasks."""


class Unwritable(SweepStopped):
    """What happens can't be written down any more: the disk is full, or broken."""


class SourceError(HsmError):
    """A source could not be started, or does not answer as it should."""


class Rejected(SourceError):
    """The source will never take this submission: the same one always fails."""


class Unavailable(SourceError):
    """The source can't take it now; later or elsewhere it may work."""


class Incomplete(Unavailable):
    """Of a batch of attempts these did not come home as they are there; all others did. They are tried again."""

    def __init__(self, words: str, attempts: frozenset[str]) -> None:
        super().__init__(words)
        self.attempts = attempts
        """their ids"""


class NoRoom(SourceError):
    """A disk is full, at home or over there; nothing goes on before somebody makes room."""


class NoRsync(SourceError):
    """rsync is missing on one of the two sides, or is none that can be used; SFTP does the same."""


class TaskError(HsmError):
    """A task failed; stands in where its own exception can't be rebuilt in the launcher."""


BAD_INPUT = (ConfigError, SelectionError, SweepNotFound)
"""what somebody asked for is wrong; commands end with exit code 2 then"""
