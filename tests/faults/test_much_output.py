"""A task that prints without end: the beginning and the end of it are kept, and nobody else is the worse for it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_core.testing import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

APP = """
import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    config = HydraConfig.get()
    folder = Path(config.runtime.cwd)
    if cfg.x == 0:
        line = b"%s\\n" % (b"noise " * 20)
        os.write(1, b"begin\\n")
        while not (folder / "quiet").exists():
            os.write(1, line * 1000)
        os.write(1, b"end\\n")
    (Path(config.runtime.output_dir) / "result.txt").write_text("done")
    return cfg.x


if __name__ == "__main__":
    main()
"""


def beginning(log: Path) -> bytes:
    with open(log, "rb") as f:
        return f.read(2 << 20)


def peak(pid: int) -> float:
    """The MiB of memory that a process had at most so far; 0 once it has ended."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def test_a_task_that_floods_its_output_harms_nobody(sweep: Sweep) -> None:
    (sweep.folder / "app.py").write_text(APP)
    options = ["hydra.launcher.logging.max_output=2MB", "hydra.launcher.stream=true"]
    launcher = sweep.launch("+x=range(5)", *options)
    log = sweep.output(0, "stdout.log")
    mark = b"\n[hsm: output truncated at 1048576 bytes; what came between is left out]\n"
    for index in range(1, 5):
        sweep.wait_for(index, "result.txt")
    wait_until(lambda: mark in beginning(log), "the output to be cut while the task runs")
    peaks = [peak(launcher.pid)]
    (sweep.folder / "quiet").touch()
    while launcher.poll() is None:
        peaks.append(peak(launcher.pid))
        time.sleep(0.01)
    assert launcher.returncode == 0, sweep.said()[-5000:]
    assert 10 < max(peaks) < 200
    data = log.read_bytes()
    assert len(data) <= 2 << 20
    assert data.startswith(b"begin\nnoise noise ")
    assert data.endswith(b"\nend\n")
    assert data.count(mark) == 1
    assert sweep.said().count("[task_001] end\n") == 1
    sweep.audit()
