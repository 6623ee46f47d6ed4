"""What HPC sources need of a scheduler; Slurm and PBS each have a module that does it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hsm_core.exceptions import Unavailable
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.resources import Resources
from hsm_core.sources.hpc.states import JobState

PATIENCE = 60.0
"""seconds that a scheduler has for an answer"""


class Unsure(Unavailable):
    """The scheduler did not say whether it took a submission: it has to be looked for before there is another."""


class Full(Unavailable):
    """The scheduler has as many jobs as it takes, of all or of this user; some later it will take more."""


@dataclass(frozen=True)
class Job:
    """What is submitted: an array whose elements run a command.

    Behind it stand an element's number and, where the scheduler tells that, how often it was started before.
    """

    token: str
    folder: str
    """takes what the scheduler writes of it"""
    command: Sequence[str]
    lead: Sequence[str]
    """commands of a shell that come before"""
    count: int
    resources: Resources
    dependency: str | None
    """in the scheduler's words"""
    requeue: bool
    """whether the scheduler may start an element again"""
    signal_delay: int
    """seconds before its time limit at which an element's own process is sent SIGUSR2; 0: it is not"""


class Scheduler(Protocol):
    """All methods but `element` and `log` ask the scheduler, and raise Unavailable when it does not answer."""

    system: str
    """its name in the configuration"""
    calls: int
    """how many of its programs were run"""

    def start(self) -> None:
        """Learn what the cluster allows. Raises SourceError where it can't be used."""

    def facts(self) -> str:
        """What `start` learnt, in words."""

    def largest_array(self) -> int:
        """How many elements an array may have; known after `start`."""

    def submit(self, job: Job) -> str:
        """Submit an array; returns its id. Raises Rejected where it will never be taken, Full, Unsure."""

    def find(self, token: str) -> str | None:
        """The id of the array with this token; None where the scheduler has none, or none any more."""

    def states(self, batches: Collection[Batch], ended: Collection[str]) -> Mapping[str, JobState]:
        """How the elements of submitted batches stand.

        `ended` names those of which an end is known to have come: of these alone more is asked than whether they live.
        """

    def element(self, job: str, index: int) -> str:
        """The name of an element of an array."""

    def log(self, batch: Batch, index: int) -> str:
        """Where an element's standard error goes, and what the scheduler writes of its end."""

    def cancel(self, elements: Collection[str]) -> None:
        """End these; those that have ended already are no error."""
