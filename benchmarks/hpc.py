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

HSM = ["hydra/launcher=hsm", "hydra/sweeper=hsm", "hydra.launcher.logging.level=WARNING"]
WAYS = {
    "submitit": ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5"],
    "hsm, jobs": [*HSM, "hydra.launcher.sources=jobs"],
    "hsm, pilot": [*HSM, "hydra.launcher.sources=pilot"],
}
"""a pilot has four slots, as a node has cores"""
SOURCES = """
compute_sources:
  jobs: {type: hpc, system: slurm}
  pilot: {type: hpc, system: slurm, mode: pilot, default_resources: "cpus_per_task=4:mem=3GB"}
"""


def sweep(folder: Path, way: str, tasks: int, out: str) -> float:
    """Seconds of a whole sweep, from the start of its program to its end."""
    points = ",".join(map(str, range(tasks)))
    command = [sys.executable, "app.py", "-m", *WAYS[way], f"hydra.sweep.dir={out}", f"+x={points}"]
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
        (folder / "hsm_config.yaml").write_text(SOURCES)
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds):
            outs = {way: f"{way.replace(', ', '_')}_{number}" for way in WAYS}
            rounds.append({way: sweep(folder, way, options.tasks, out) for way, out in outs.items()})
    print(f"{options.tasks} tasks, from the start of the program to its end")
    for way in WAYS:
        each = statistics.median(times[way] for times in rounds) / options.tasks * 1000
        ratio = statistics.median(times["submitit"] / times[way] for times in rounds)
        print(f"  {way:10} {each:6.0f} ms a task, submitit / this {ratio:5.2f}")


if __name__ == "__main__":
    main()
