"""The hosts and clusters that the suite's sources lead to."""

from __future__ import annotations

from tests.testbed.fixtures import client_key, far_python, make_host, ssh_home, ssh_host
from tests.testbed.slurm_fixtures import slurm, slurm_accounting, slurm_programs

__all__ = [
    "client_key",
    "far_python",
    "make_host",
    "slurm",
    "slurm_accounting",
    "slurm_programs",
    "ssh_home",
    "ssh_host",
]
