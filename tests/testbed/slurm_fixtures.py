"""Fixtures over the clusters of `tests.testbed.slurm`; a folder's conftest.py imports those it wants.

A cluster serves all tests of a session, so each test ends its own jobs (`clear`) and starts what it has killed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.slurm import ACCOUNTING_PROGRAMS, PROGRAMS, SlurmCluster, remove_leftovers
from tests.testbed.sshd import need


@pytest.fixture(scope="session")
def slurm_programs() -> None:
    """What a `SlurmCluster` without accounting needs is here."""
    need(PROGRAMS, "a Slurm cluster of one's own")
    remove_leftovers()


@pytest.fixture(scope="session")
def slurm(slurm_programs: None) -> Iterator[SlurmCluster]:
    """A cluster without accounting."""
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_accounting(slurm_programs: None) -> Iterator[SlurmCluster]:
    """A cluster with accounting: here `sacct` works."""
    need(ACCOUNTING_PROGRAMS, "a Slurm cluster with accounting")
    with SlurmCluster(accounting=True) as cluster:
        yield cluster
