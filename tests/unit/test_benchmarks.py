"""The benchmarks that need no peers run, so that they are there when a figure is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "benchmarks" / "engine.py"


def test_the_engine_is_measured_in_all_its_parts(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ENGINE),
        "--tasks",
        "12",
        "--events",
        "80",
        "--slots",
        "1,4",
        "--folder",
        str(tmp_path),
    ]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout
    rows = [line.rsplit(maxsplit=3)[:2] for line in told.splitlines()[2:]]
    assert [(what.strip(), int(count)) for what, count in rows] == [
        ("tasks, 1 slots", 12),
        ("closing the sweep", 12),
        ("tasks, 4 slots", 12),
        ("closing the sweep", 12),
        ("events appended", 83),
        ("synced by 1", 83),
        ("synced by 100", 83),
        ("events replayed", 83),
    ]
    assert list(tmp_path.iterdir()) == []
