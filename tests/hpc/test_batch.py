"""What a later launcher finds of the arrays that an earlier one has submitted."""

from __future__ import annotations

from pathlib import Path

from hsm_core.sources.hpc import batch
from hsm_core.sources.hpc.resources import parse


def test_a_batch_is_found_as_it_was_written(tmp_path: Path) -> None:
    asked = {"mem": "4GB", "gpus": "a100:2", "exclusive": "user", "walltime": "1h"}
    resources = parse({**asked, "extra": {"nice": 1, "mail-type": ["END", "FAIL"], "contiguous": True, "bb": None}})
    made = batch.write(tmp_path, [{"id": "task_001.1.1"}, {"id": "task_002.1.1"}], {"requeue": False}, resources)
    assert batch.find(tmp_path) == [made]
    made.submitted("17")
    assert batch.find(tmp_path) == [made]
    assert (made.job, made.resources) == ("17", resources)
    made.void()
    assert batch.find(tmp_path) == []
