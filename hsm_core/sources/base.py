"""What a source is: the interface between the engine and a place that runs tasks.

A third party's source subclasses `Source`, names itself in the entry-point group `hsm.sources`
and inherits the conformance suite of `hsm_core.testing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import SourceEvent
from hsm_core.task import Attempt

Post = Callable[[SourceEvent], None]
"""How a source answers; may be called from any thread, never blocks."""


@dataclass(frozen=True)
class SweepContext:
    """What a source has to know of the sweep it works for."""

    id: str
    key: str
    """tells it from all other sweeps, whoever's they are; may name a folder"""
    directory: Path
    epoch: int
    payload: Path
    """folder made by `hsm_core.payload.write`: all that a task needs beside its overrides"""
    config: HsmConfig
    threads_per_task: int
    """how many threads a task's numerical libraries may start"""

    @property
    def records(self) -> Path:
        """Folder of the result records."""
        return self.directory / ".hsm" / "results"


@dataclass(frozen=True)
class CommandResult:
    """What `run_command` brought back. `exit_code` is negative for a signal."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class GpuHealth:
    """One GPU of a host, as nvidia-smi tells; None where it does not."""

    id: str
    """its UUID"""
    model: str
    memory_total: float | None
    """MiB"""
    memory_free: float | None
    """MiB"""
    utilisation: float | None
    """percent of the time in which it computed, lately"""


@dataclass(frozen=True)
class Health:
    """How a source's host is; None where the host does not tell."""

    load: float | None
    """running processes per core, on average over the last minute"""
    memory_total: float | None
    """MiB"""
    memory_available: float | None
    """MiB that programs can have without swapping"""
    disk_free: float | None
    """MiB on the disk that the sweep's output is written to there"""
    disk_free_percent: float | None
    """share of that disk"""
    uptime: float
    """seconds since the host was started"""
    gpus: Sequence[GpuHealth]
    gpu_problem: str | None
    """why nothing is known of GPUs, where nvidia-smi is there"""
    latency: float
    """ms to the source's agent and back"""


class Source(ABC):
    """A named place with `slots` slots.

    A source answers only through the `post` it got from `start`. It never retries, never
    decides and never raises from a thread of its own: what it can't do it posts.
    For every attempt given to `submit` or `attach` it posts exactly one `AttemptFinished`,
    unless it is stopped first; `AttemptStarted` comes before that where the task began.
    """

    type: str
    outlives_launcher: bool = False
    """Whether attempts can go on without a launcher, for the next one's `attach` to find them. Such a
    source has a `leave` of its own."""

    shares_files: bool = True
    """Whether the output directories are in the sweep directory from the start; `collect` brings them otherwise."""

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        self.name = name
        self.config = config
        self.slots = slots

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        """Slots of a source whose configuration names none, for tasks that need so many GPUs (None: not said).

        0 where only `start` can tell; afterwards `slots` is what it found.
        """
        return 1

    @property
    def has_gpu(self) -> bool:
        """Whether tasks there can be given a GPU, as far as the configuration or the host tells."""
        return bool(self.config.gpus)

    @property
    def load(self) -> float | None:
        """The host's own load (running processes per core) as last heard, None if unknown."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Facts for people and the journal, as JSON."""
        return {}

    def warm_up(self, directory: Path, sweep: HsmConfig, threads_per_task: int) -> None:  # noqa: B027 - optional
        """Do what may save time later, while nobody knows yet whether there will be a new sweep in `directory`.

        Returns at once and never raises: what goes wrong is told by `start`. Where `start` never comes, `stop` does.
        """

    @abstractmethod
    def start(self, sweep: SweepContext, post: Post) -> None:
        """Connect and prepare everything that tasks share.

        Returns when `submit` can be called. Raises SourceError, and leaves nothing running,
        when the source can't be used.
        """

    @abstractmethod
    def submit(self, attempts: Sequence[Attempt]) -> None:
        """Take a batch; returns at once.

        Raises Rejected when none of the batch was taken or ever will be. Raises Unavailable when
        none of it was taken now, or nobody can tell: `attach` is called for the batch then, and
        the source counts as down until it posts SourceUp. What fails later, or for some of them
        only, is posted.
        """

    @abstractmethod
    def attach(self, attempts: Sequence[Attempt]) -> None:
        """Take over attempts that an earlier launcher submitted, or that `submit` may have; returns at once.

        Each is posted as finished once that is known: with its result record if it left one,
        with cause `lost` once it is proven that it never will; at once if it was never taken.
        Until then nobody else gets its task. Raises Unavailable when nobody can tell now: then
        this is called for them again after the next SourceUp.
        """

    @abstractmethod
    def cancel(self, attempts: Sequence[Attempt]) -> None:
        """End these with everything they started; returns at once, idempotent.

        Each of them that had not ended is posted as finished with cause `cancelled`. Raises
        Unavailable when the source can't be told now: then this is called again after SourceUp.
        """

    @abstractmethod
    def collect(self, attempts: Sequence[Attempt]) -> None:
        """Bring the output directories home; afterwards those of ended attempts are complete in the sweep directory.

        Of attempts that run, what is there now is brought; one that has not begun has none. Incremental and
        resumable; may be called from several threads for different attempts. Raises Incomplete where that is so of some
        only, Unavailable when the source can't be reached, SourceError where it is no use to try again soon.
        """

    @abstractmethod
    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        """Run a program there and wait for it, at most `timeout` seconds.

        Raises Unavailable when it can't be started or takes longer; then it has been killed.
        """

    def health(self) -> Health | None:
        """How the host is now; None: a source of this type can't tell.

        May be called between `start` and `stop`, from any thread. Raises Unavailable when it does not answer.
        """
        return None

    @abstractmethod
    def stop(self, timeout: float = 10.0) -> None:
        """End everything that still runs there, within `timeout` seconds; idempotent.

        Afterwards no process of ours is left and nothing more is posted. A call that an
        exception left (Ctrl-C) may be followed by another with less time.
        """

    def leave(self, timeout: float = 10.0) -> None:
        """Disconnect, within `timeout` seconds, and let run what can run without a launcher; idempotent.

        It is called in place of `stop`. Afterwards nothing more is posted; attempts that had not
        ended go on, and `attach` of a later launcher takes them over. What can't go on has ended
        as by `stop`: all of it, where `outlives_launcher` is false.
        """
        self.stop(timeout)
