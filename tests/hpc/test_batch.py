"""What a later launcher finds of the arrays that an earlier one has submitted."""

from __future__ import annotations

from pathlib import Path

from hsm_core.sources.hpc import batch
from hsm_core.sources.hpc.resources import parse, plain
from hsm_core.sources.hpc.site import Here


def test_a_batch_is_found_as_it_was_written(tmp_path: Path) -> None:
    asked = {"mem": "4GB", "gpus": "a100:2", "exclusive": "user", "walltime": "1h"}
    resources = parse({**asked, "extra": {"nice": 1, "mail-type": ["END", "FAIL"], "contiguous": True, "bb": None}})
    site, ids = Here(), ["task_001.1.1", "task_002.1.1"]
    made = batch.new(str(tmp_path), ids, resources)
    site.write(made.folder, {"requeue": False, "resources": plain(resources), "attempts": [{"id": id_} for id_ in ids]})

    def found() -> list[batch.Batch]:
        return [batch.earlier(one) for one in site.find(str(tmp_path), str(tmp_path))]

    assert found() == [made]
    site.submitted(made.folder, "17")
    made.job = "17"
    assert found() == [made]
    site.void(made.folder)
    assert found() == []
