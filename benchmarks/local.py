"""Tasks on this machine: hsm beside Hydra's own launchers, in one run, as ratios of interleaved pairs.

    python benchmarks/local.py [--tasks 100] [--rounds 3]

Peers that are not installed are left out. Every launcher runs the same app with two slots, from
the start of the process to its end; all of Hydra's files are written. Ratios are medians over the
rounds of (peer / hsm), each from runs right after one another: the machine's drift cancels out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

APP = """
import hydra

{imports}

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    return cfg.x

if __name__ == "__main__":
    main()
"""

WAYS = {
    "hsm": ["hydra/launcher=hsm", "hydra/sweeper=hsm", "hydra.launcher.sources=local:2"],
    "hsm, basic sweeper": ["hydra/launcher=hsm", "hydra.launcher.sources=local:2"],
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=1"],
}
NEEDED = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}


def installed(way: str) -> bool:
    return way not in NEEDED or importlib.util.find_spec(NEEDED[way]) is not None


def run(folder: Path, way: str, tasks: int) -> float:
    """Seconds of a whole sweep."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "app.py", "-m", *WAYS[way], f"hydra.sweep.dir={out}/sweep", f"x=range({tasks})"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        ended = len(list(Path(out, "sweep").glob("*/.hydra/config.yaml")))
        if ended != tasks:
            raise SystemExit(f"{way} ran {ended} of {tasks} tasks")
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imports", default="", help="modules the app imports, e.g. sklearn.ensemble")
    parser.add_argument("--ways", default=",".join(WAYS), help="which launchers, separated by commas")
    options = parser.parse_args()
    ways = [way for way in options.ways.split(",") if installed(way)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imports = "\n".join(f"import {module}" for module in options.imports.split(",") if module)
        folder.joinpath("app.py").write_text(APP.format(imports=imports))
        folder.joinpath("conf").mkdir()
        folder.joinpath("conf", "config.yaml").write_text("x: 0\n")
        for way in ways:
            run(folder, way, 2)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        ratios: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                own = run(folder, "hsm", options.tasks)
                other = own if way == "hsm" else run(folder, way, options.tasks)
                seconds[way].append(other)
                ratios[way].append(other / own)
    print(f"{options.tasks} tasks, {options.rounds} rounds, Python {sys.version.split()[0]}")
    print(f"{'launcher':20} {'ms a task':>10} {'times hsm':>10}")
    for way in ways:
        milliseconds = statistics.median(seconds[way]) / options.tasks * 1000
        print(f"{way:20} {milliseconds:10.1f} {statistics.median(ratios[way]):10.2f}")


if __name__ == "__main__":
    main()
