"""What the tests of HPC sources share: real clusters."""

from __future__ import annotations

from tests.testbed.slurm_fixtures import slurm, slurm_accounting, slurm_programs

__all__ = ["slurm", "slurm_accounting", "slurm_programs"]
