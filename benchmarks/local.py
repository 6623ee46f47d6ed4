"""Tasks on this machine: hsm beside Hydra's own launchers, in one run, as ratios of interleaved pairs.

    python benchmarks/local.py [--tasks 100] [--rounds 3] [--imports 1.0]

Peers that are not installed are left out. Every launcher runs the same app with two slots, from
the start of the process to its end; all of Hydra's files are written. Ratios are medians over the
rounds of (peer / hsm), each from runs right after one another: the machine's drift cancels out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

APP = """
import os, sys, time

import hydra

time.sleep({imports})  # as heavy imports would take
imported = time.time()


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    began = os.environ.get("BENCH_BEGAN")
    if began:
        try:
            os.close(os.open(began, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
    return cfg.x


if __name__ == "__main__":
    if os.environ.get("BENCH_BEGAN") and not os.environ.get("HSM_SWEEP_ID"):
        with open(os.environ["BENCH_BEGAN"] + ".imported", "w") as f:
            f.write(str(imported))
    main()
"""

WAYS = {
    "hsm": ["hydra/launcher=hsm", "hydra/sweeper=hsm", "hydra.launcher.sources=local:2"],
    "hsm, reuse": [
        "hydra/launcher=hsm",
        "hydra/sweeper=hsm",
        "hydra.launcher.sources=local:2",
        "hydra.launcher.isolation=reuse",
    ],
    "hsm, basic sweeper": ["hydra/launcher=hsm", "hydra.launcher.sources=local:2"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "basic": ["hydra/launcher=basic"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=1"],
}
NEEDED = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}


def installed(way: str) -> bool:
    return way not in NEEDED or importlib.util.find_spec(NEEDED[way]) is not None


def run(folder: Path, way: str, tasks: int) -> tuple[float, float]:
    """Seconds of a whole sweep, and from the app's import in its launcher to the first task's function."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "app.py", "-m", *WAYS[way], f"hydra.sweep.dir={out}/sweep", f"x=range({tasks})"]
        began = Path(out, "began")
        environment = {**os.environ, "BENCH_BEGAN": str(began), "XDG_STATE_HOME": f"{out}/state"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have theirs
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
        seconds = time.perf_counter() - start
        ended = len(list(Path(out, "sweep").glob("*/.hydra/config.yaml")))
        if ended != tasks:
            raise SystemExit(f"{way} ran {ended} of {tasks} tasks")
        return seconds, began.stat().st_mtime - float(Path(f"{began}.imported").read_text())


def measure(tasks: int, rounds: int, imports: float, ways: Sequence[str]) -> list[dict[str, float | str]]:
    """One row per launcher: milliseconds per task, times hsm, seconds to the first task (medians)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.joinpath("app.py").write_text(APP.format(imports=imports))
        folder.joinpath("conf").mkdir()
        folder.joinpath("conf", "config.yaml").write_text("x: 0\n")
        for way in ways:
            run(folder, way, 2)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        ratios: dict[str, list[float]] = {way: [] for way in ways}
        first: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                own, own_first = run(folder, "hsm", tasks)
                other, other_first = (own, own_first) if way == "hsm" else run(folder, way, tasks)
                seconds[way].append(other)
                ratios[way].append(other / own)
                first[way].append(other_first)
    return [
        {
            "launcher": way,
            "ms": statistics.median(seconds[way]) / tasks * 1000,
            "times hsm": statistics.median(ratios[way]),
            "first task s": statistics.median(first[way]),
        }
        for way in ways
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imports", type=float, default=0.0, help="seconds that the app's imports take")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only these launchers; hsm is always in")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    options = parser.parse_args()
    ways = [way for way in WAYS if installed(way) and (way in (options.way or WAYS) or way == "hsm")]
    rows = measure(options.tasks, options.rounds, options.imports, ways)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{options.tasks} tasks, {options.imports:g} s of imports, {options.rounds} rounds")
    print(f"{'launcher':20} {'ms a task':>10} {'times hsm':>10} {'first task s':>13}")
    for row in rows:
        print(f"{row['launcher']:20} {row['ms']:10.1f} {row['times hsm']:10.2f} {row['first task s']:13.2f}")


if __name__ == "__main__":
    main()
