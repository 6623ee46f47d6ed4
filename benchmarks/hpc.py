"""Tasks on a real Slurm, hsm beside hydra-submitit-launcher: four nodes of four cores, all on this machine.

    python benchmarks/hpc.py [--tasks 100] [--rounds 3]

Needs root and what `make test` installs. Ratios are medians over rounds of pairs that run right after one another: the
machine's drift cancels out. Nothing is removed between rounds: for minutes after files were removed, ext4 may take ten
times as long to make others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.noop import APP  # noqa: E402
from tests.testbed.slurm import SlurmCluster  # noqa: E402

LAUNCHERS = {
    "hsm": ["hydra/launcher=hsm", "hydra/sweeper=hsm", "hydra.launcher.logging.level=WARNING"],
    "submitit": ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5"],
}


def sweep(folder: Path, launcher: str, tasks: int, out: str) -> float:
    """Seconds of a whole sweep, from the start of its program to its end."""
    points = ",".join(map(str, range(tasks)))
    command = [sys.executable, "app.py", "-m", *LAUNCHERS[launcher], f"hydra.sweep.dir={out}", f"+x={points}"]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name, SlurmCluster() as cluster:
        folder = Path(name)
        os.environ |= {**cluster.environ, "XDG_STATE_HOME": f"{name}/state"}
        (folder / "app.py").write_text(APP)
        (folder / "hsm_config.yaml").write_text("compute_sources: {cluster: {type: hpc, system: slurm}}\n")
        pairs = []
        for number in range(options.rounds):
            ours = sweep(folder, "hsm", options.tasks, f"hsm_{number}")
            pairs.append((ours, sweep(folder, "submitit", options.tasks, f"submitit_{number}")))
        ours, theirs = (statistics.median(column) / options.tasks * 1000 for column in zip(*pairs, strict=True))
        ratio = statistics.median(submitit / hsm for hsm, submitit in pairs)
        print(f"{options.tasks} tasks, from the start of the program to its end")
        print(f"  hsm       {ours:6.0f} ms a task\n  submitit  {theirs:6.0f} ms a task\n  submitit / hsm {ratio:.2f}")


if __name__ == "__main__":
    main()
