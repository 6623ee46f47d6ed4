"""What a job's own variables say that it was given."""

from __future__ import annotations

import pytest

from hsm_core.remote.allocation import gpus, memory

SLURM = {"SLURM_JOB_ID": "12"}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, None),
        (SLURM, None),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0"}, None),  # the submitting shell's
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_JOB_GPUS": ""}, None),
        ({**SLURM, "SLURM_JOB_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}, ["0", "1"]),
        ({**SLURM, "SLURM_JOB_GPUS": "2,3"}, ["2", "3"]),
        ({"PBS_JOBID": "12[0].server"}, None),
        ({"PBS_JOBID": "12[0].server", "CUDA_VISIBLE_DEVICES": "GPU-1, GPU-2"}, ["GPU-1", "GPU-2"]),
    ],
)
def test_gpus(environ: dict[str, str], names: list[str] | None) -> None:
    assert gpus(environ) == names


@pytest.mark.parametrize(
    ("environ", "mebibytes"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "4000", "SLURM_CPUS_ON_NODE": "4"}, 4000),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "4"}, 400),
        ({"SLURM_MEM_PER_NODE": "0"}, None),  # all that the node has
        ({"SLURM_MEM_PER_CPU": "100"}, None),
    ],
)
def test_memory(environ: dict[str, str], mebibytes: float | None) -> None:
    assert memory(environ) == mebibytes
