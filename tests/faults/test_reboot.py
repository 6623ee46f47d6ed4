"""The machine goes down in the middle of a sweep; after the reboot `hsm complete` goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from hsm_core.testing import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep


def test_complete_after_a_reboot(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All was killed at once, the pids are others' now, and temporary files and the registry are gone."""
    sweep.launch("+x=range(6)", "+gated=2")
    sweep.wait_for(2, "starts")
    wait_until(lambda: len(sweep.finished()) == 2, "the first two tasks")
    sweep.kill()
    sweep.wait_for_peace()
    finished = sweep.finished()

    hsm = sweep.directory / ".hsm"
    owner = hsm / "owner_0001.json"
    record = json.loads(owner.read_text())
    ours = psutil.Process().create_time()
    reborn = {"pid": os.getpid(), "started": ours - 86400, "since_boot": ours - psutil.boot_time()}
    owner.write_text(json.dumps({**record, **reborn, "boot": "5c1d9f3e-0000-4000-8000-000000000000"}))
    with open(hsm / "journal.jsonl", "ab") as journal:
        journal.write(b'{"seq":')
    (hsm / "results" / ".task_003.1.1.json.new").write_text("{")
    for variable in ("TMPDIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))

    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    now = sweep.finished()
    assert set(now) == set(range(6))
    assert {index: now[index] for index in finished} == finished
    sweep.audit()
