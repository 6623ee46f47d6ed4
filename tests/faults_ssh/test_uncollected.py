"""What could not be brought home by the end of a sweep waits on its host, and `hsm complete` brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm_core.events import ResultsCollected
from tests.faults_ssh.conftest import FarSweep

NO_TRANSFERS = """
from hsm_core import sync
from hsm_core.exceptions import Unavailable
from hsm_core.sources.ssh.source import SshSource

def collect(self, attempts):
    raise Unavailable("the cable is cut")

sync.PATIENCE = 0.5
SshSource.collect = collect
"""


def test_results_that_are_not_home(far: FarSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_TRANSFERS)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path / "site"))
        assert far.launch("+x=range(3)").wait(60) == 0, far.said()
    assert "results can't be brought home now: the cable is cut" in far.said()
    assert "the output of 3 tasks is not home yet; hsm complete" in far.said()
    assert not far.output(0, "result.txt").exists()
    assert [(finding.kind, finding.where) for finding in far.findings()] == [
        ("not home", f"task_00{number}") for number in (1, 2, 3)
    ]
    assert far.complete().wait(60) == 0, far.said()
    assert len(far.heard(ResultsCollected)) == 1
    far.assert_done_once(3)
    assert "nothing left to run" in far.hsm("complete", str(far.directory))
