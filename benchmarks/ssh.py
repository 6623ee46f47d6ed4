"""Tasks and files on a host reached by SSH, beside the same on this machine: a private sshd on the loopback.

    python benchmarks/ssh.py [--tasks 200] [--rounds 3]

Needs root, for a user that owns the host's files, sshd and rsync. Ratios are medians over rounds of pairs
that run right after one another: the machine's drift cancels out. Nothing is removed between rounds: for minutes after
files were removed, ext4 may take ten times as long to make others.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks.noop import APP  # noqa: E402
from hsm_core.config import SourceConfig  # noqa: E402
from hsm_core.remote import manifest  # noqa: E402
from hsm_core.sources.ssh.source import SshSource  # noqa: E402
from hsm_core.ssh import deploy  # noqa: E402
from hsm_core.ssh.connection import Connection  # noqa: E402
from hsm_core.testing import Bench  # noqa: E402
from hsm_core.transfer import rsync  # noqa: E402
from hsm_core.transfer.collector import Collector  # noqa: E402
from hsm_core.transfer.parcels import Parcels  # noqa: E402
from hsm_core.transfer.transfers import Transfers  # noqa: E402
from tests.testbed.environment import make_environment  # noqa: E402
from tests.testbed.sshd import ClientKey, SshHome, SshHost  # noqa: E402

BIG = 200
"""MB of the file that is brought"""


@contextmanager
def host(folder: Path) -> Iterator[SshHost]:
    home = SshHome(folder / "home")
    os.environ.update(HOME=str(home.folder), XDG_STATE_HOME=str(folder / "state"))
    os.environ.pop("SSH_AUTH_SOCK", None)
    (folder / "key").mkdir()
    with SshHost(ClientKey(folder / "key")) as made:
        home.trust(made)
        yield made


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def sweep(folder: Path, sources: str, tasks: int, out: str) -> Callable[[], None]:
    def run() -> None:
        command = [sys.executable, "app.py", "-m", "hydra/launcher=hsm", "hydra/sweeper=hsm"]
        command += [f"hydra.launcher.sources={sources}", f"hydra.sweep.dir={out}", f"+x=range({tasks})"]
        command += ["hydra.launcher.logging.level=WARNING"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def sweeps(folder: Path, config: SourceConfig, tasks: int, rounds: int) -> None:
    (folder / "app.py").write_text(APP)
    far = f"type: ssh, host: {config.host}, port: {config.port}, user: {config.user}, ssh_key: {config.ssh_key}"
    lines = ["compute_sources:", "  near: {type: local, max_parallel_tasks: 2}"]
    lines.append(f"  far: {{{far}, python: {config.python}, max_parallel_tasks: 2}}")
    (folder / "hsm_config.yaml").write_text("\n".join(lines) + "\n")
    seconds(sweep(folder, "far", 2, "warm"))
    pairs = []
    for number in range(rounds):
        near = seconds(sweep(folder, "near", tasks, f"near_{number}"))
        pairs.append((near, seconds(sweep(folder, "far", tasks, f"far_{number}"))))
    near, far_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(far_time / near_time for near_time, far_time in pairs)
    print(f"{tasks} tasks, start-up and results at home included")
    print(f"  local {near / tasks * 1000:7.1f} ms a task\n  ssh   {far_seconds / tasks * 1000:7.1f} ms a task")
    print(f"  ssh / local {ratio:.2f}")


def first_task(folder: Path, config: SourceConfig, rounds: int) -> None:
    times = []
    for number in range(rounds + 1):  # the first one brings our code
        bench = Bench(SshSource("far", config, 2), folder / f"first_{number}")
        began = time.perf_counter()
        bench.start()
        attempt = bench.attempt(0, "do=return")
        bench.source.submit([attempt])
        bench.started(attempt)
        times.append(time.perf_counter() - began)
        bench.source.stop(5.0)
    warm = statistics.median(times[1:])
    print(f"first task after the connection attempt: {times[0]:.2f} s, on a warm host {warm:.2f} s")


def transfers(folder: Path, made: SshHost, config: SourceConfig, rounds: int) -> None:
    there = made.home / "files"
    (there / ".hsm" / "results").mkdir(parents=True)
    outputs = {f"task_{number:03}.1.1": str(number) for number in range(100)}
    for attempt, name in outputs.items():
        (there / name).mkdir()
        for file in ("a", "b", "c"):
            (there / name / file).write_bytes(os.urandom(1000))
        manifest.write(str(there / name), str(there / ".hsm" / "results" / f"{attempt}.manifest"))
    (there / "big").write_bytes(os.urandom(BIG * 1_000_000))
    subprocess.run(["chown", "-R", str(made.uid), str(there)], check=True)
    connection = Connection("far", config)
    connection.open()
    command = [str(config.python), "-I", "-S", str(ours(made.folder / "code")), "parcel"]
    parcels = Parcels(connection, command, str(there))
    parcels.bring({}, folder)  # the program there stays, as it does in a sweep

    def by_us(into: Path) -> None:
        into.mkdir()
        collector = Collector(Transfers(connection, compress=False), parcels, "far", str(there), into, pickles=False)
        collector.collect(outputs, outputs.keys())

    def by_tar(into: Path) -> None:
        into.mkdir()
        program = connection.run(f"cd {shlex.quote(str(there))} && tar cf - {' '.join(outputs.values())}")
        with subprocess.Popen(["tar", "xf", "-"], cwd=into, stdin=subprocess.PIPE) as unpacking:
            assert unpacking.stdin is not None
            while data := program.stdout.read(1 << 16):
                unpacking.stdin.write(data)
            unpacking.stdin.close()
        program.close()

    pairs = []
    for number in range(3 * rounds):
        tar = seconds(partial(by_tar, folder / f"tar_{number}"))
        pairs.append((tar, seconds(partial(by_us, folder / f"us_{number}"))))
        assert len(list((folder / f"us_{number}").glob("*/?"))) == 300
    tar, hsm = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    ratio = statistics.median(our_time / tar_time for tar_time, our_time in pairs)
    print(f"100 directories of 3 files: tar {tar:.0f} ms, hsm {hsm:.0f} ms, hsm / tar {ratio:.2f}")
    big = []
    for number in range(rounds):
        target = folder / f"big_{number}"
        big.append(BIG / seconds(partial(rsync.pull, connection, str(there), ["big"], target)))
    print(f"a file of {BIG} MB: {statistics.median(big):.0f} MB/s")
    connection.close()


def ours(folder: Path) -> Path:
    """The code that runs on hosts, unpacked; returns its main file."""
    with zipfile.ZipFile(io.BytesIO(deploy.archive()[0])) as archive:
        archive.extractall(folder)
    return folder / "hsm_core" / "remote" / "__main__.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name, host(Path(name)) as made:
        folder = Path(name)
        config = made.config(python=str(make_environment(made.folder / "environment")))
        sweeps(folder, config, options.tasks, options.rounds)
        first_task(folder, config, options.rounds)
        transfers(folder, made, config, options.rounds)


if __name__ == "__main__":
    main()
