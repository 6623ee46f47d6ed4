"""Where a cluster's jobs have their files, and how what they leave there is known here.

A launcher on a node of the cluster shares the sweep's directory with its jobs. For one elsewhere, which reaches a login
node by SSH (`host`), there is another directory of the sweep; what is in it comes home as from any such host.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import hsm_core.remote
from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.records import outcome_of
from hsm_core.sources.base import Post, SweepContext
from hsm_core.sources.hpc.site import Here, Mark, Site
from hsm_core.space import why_unwritable
from hsm_core.task import Attempt, Outcome

Submit = Callable[[Sequence[Attempt]], None]


class Home(ABC):
    """`site` can be asked, and `directory`, the sweep's there, is known from `find` on."""

    site: Site
    directory: str
    shared: bool
    """whether the output directories are in the sweep's directory here from the start"""

    @property
    @abstractmethod
    def where(self) -> str:
        """The source, for people."""

    @abstractmethod
    def find(self, sweep: SweepContext, post: Post) -> None:
        """Come to the site. Raises HsmError."""

    @property
    @abstractmethod
    def interpreter(self) -> Sequence[str]:
        """What starts programs of ours on a node, by an interpreter that has Hydra."""

    @abstractmethod
    def began(self, attempt_id: str, mark: Mark) -> str | None:
        """The output directory here of an attempt that has begun; None where it may have none here."""

    @abstractmethod
    def outcome(self, attempt_id: str, record: object) -> Outcome:
        """What a record says that was read at the site; it is here by the time that this is told."""

    @abstractmethod
    def unwritable(self, error: OSError, folder: str) -> str:
        """Why nothing can be written to a folder of the site, and what to do."""

    def warm_up(self, sweep: HsmConfig) -> None:  # noqa: B027 - nothing to be done where files are shared
        """Come to the site while nobody knows for which sweep; never raises."""

    def wait_for_code(self) -> None:  # noqa: B027
        """Return once the app's code is there. Raises HsmError."""

    def facts(self) -> Mapping[str, object]:
        """What people and the journal should know of it."""
        return {}

    def submit(self, attempts: Sequence[Attempt], submit: Submit) -> None:
        """Submit these, once what earlier attempts left here is at the site; returns at once."""
        submit(attempts)

    def take_back(self, attempts: Sequence[Attempt]) -> Set[str]:
        """The ids of those of these that were not submitted yet, and won't be."""
        return frozenset()

    def collect(self, attempts: Sequence[Attempt]) -> None:  # noqa: B027
        """As `Source.collect`."""

    def hurry(self) -> None:  # noqa: B027
        """Wait no longer for room on a full disk."""

    def part(self, *, ended: bool) -> None:  # noqa: B027
        """Leave the site; `ended`: nothing of the sweep runs there any more, so what is not wanted can go."""


class SharedHome(Home):
    """That of jobs which share our files."""

    shared = True

    def __init__(self, name: str, config: SourceConfig) -> None:
        self._name = name
        self._config = config
        self.site = Here()

    @property
    def where(self) -> str:
        return self._name

    def find(self, sweep: SweepContext, post: Post) -> None:
        self.directory = str(sweep.directory)
        self.site.start()

    @property
    def interpreter(self) -> Sequence[str]:
        # A node's Python is that of the environment; without one, it is ours, on the shared disk.
        python = self._config.python or ("python3" if self._config.conda_env else sys.executable)
        return [os.path.expanduser(python), "-u", str(Path(hsm_core.remote.__file__).with_name("__main__.py"))]

    def began(self, attempt_id: str, mark: Mark) -> str | None:
        return mark.output_dir

    def outcome(self, attempt_id: str, record: object) -> Outcome:
        return outcome_of(record, attempt_id)

    def unwritable(self, error: OSError, folder: str) -> str:
        return why_unwritable(error, Path(folder))


def home_of(name: str, config: SourceConfig) -> Home:
    """The home of the jobs of a source."""
    if config.host is None:
        return SharedHome(name, config)
    from hsm_core.sources.hpc.login_node import FarHome  # which takes long to import, and few sources need it

    return FarHome(name, config)
