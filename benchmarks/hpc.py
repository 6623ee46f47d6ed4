"""Tasks on a real Slurm, hsm beside hydra-submitit-launcher: four nodes of four cores, all on this machine.

    python benchmarks/hpc.py [--tasks 100] [--rounds 3] [--many 1000]

And how often Slurm is called for many tasks, where an array has 100 elements at most. Needs root and what `make test`
installs. Ratios are medians over rounds of pairs that run right after one another: the machine's drift cancels out.
Nothing is removed between rounds: for minutes after files were removed, ext4 may take ten times as long to make others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.noop import APP  # noqa: E402
from tests.testbed.call_log import CallLog  # noqa: E402
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


def prepare(folder: Path, environ: Mapping[str, str]) -> None:
    """What sweeps in this folder need, on the cluster of `environ`."""
    os.environ |= {**environ, "XDG_STATE_HOME": f"{folder}/state"}
    (folder / "app.py").write_text(APP)
    (folder / "hsm_config.yaml").write_text(SOURCES)


def calls(tasks: int) -> None:
    """Print how often the programs of a Slurm with small arrays are called in a sweep of so many tasks."""
    with tempfile.TemporaryDirectory() as name, SlurmCluster({"MaxArraySize": "101"}) as cluster:
        folder = Path(name)
        log = CallLog(folder / "log", cluster.environ)
        prepare(folder, log.environ)
        elapsed = sweep(folder, "hsm, jobs", tasks, "many")
        counts = log.counts()
    asked = counts.total() - counts["scontrol"]  # which is once, for what the cluster allows
    each = ", ".join(f"{count} {program}" for program, count in counts.most_common())
    print(f"{tasks} tasks in arrays of 100 at most: {elapsed:.0f} s, {elapsed / tasks * 1000:.0f} ms a task")
    print(f"  {counts['sbatch']} submissions (wanted: {-(-tasks // 100) + 2} at most)")
    print(f"  {asked} submissions and questions (wanted: {2 + elapsed / 5:.0f} at most): {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=1000, help="0: no such sweep")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name, SlurmCluster() as cluster:
        folder = Path(name)
        prepare(folder, cluster.environ)
        rounds: list[dict[str, float]] = []
        for number in range(options.rounds):
            outs = {way: f"{way.replace(', ', '_')}_{number}" for way in WAYS}
            rounds.append({way: sweep(folder, way, options.tasks, out) for way, out in outs.items()})
    print(f"{options.tasks} tasks, from the start of the program to its end")
    for way in WAYS:
        each = statistics.median(times[way] for times in rounds) / options.tasks * 1000
        ratio = statistics.median(times["submitit"] / times[way] for times in rounds)
        print(f"  {way:10} {each:6.0f} ms a task, submitit / this {ratio:5.2f}")
    if options.many:
        calls(options.many)


if __name__ == "__main__":
    main()
