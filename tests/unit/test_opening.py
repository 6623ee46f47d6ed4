"""Opening a sweep."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hsm_core.events import SweepStarted
from hsm_core.journal import Journal, replay
from hsm_core.opening import sweep_key

BEGUN = SweepStarted(
    "sweep_20260115_143022", 1, "0.1.0", "3.11.7", "1.3.8", "/home/me", ("python", "t.py", "x='\udcff'"), "t", "vm", 7
)


def test_a_later_launcher_finds_what_the_first_one_left_on_hosts(tmp_path: Path) -> None:
    """The key names folders there, so it must be the same for all launchers of a sweep, and for no other sweep's."""
    path = tmp_path / "journal.jsonl"
    journal = Journal.create(path)
    journal.append(BEGUN)
    journal.close()
    again = replay(path).state.started
    assert again is not None
    assert sweep_key(again) == sweep_key(BEGUN)
    others = [msgspec.structs.replace(BEGUN, **{key: value}) for key, value in OTHER.items()]
    assert len({sweep_key(begun) for begun in [BEGUN, *others]}) == len(OTHER) + 1


OTHER = {"id": "sweep_20260115_143023", "host": "vn", "pid": 8, "cwd": "/home/you", "argv": ("python", "t.py")}
