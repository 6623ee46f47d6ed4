"""Tasks on this machine, through an agent that is our child."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

import hsm_core.remote
from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.remote import gpus, leases, process
from hsm_core.sources.agent import AgentSource, Line
from hsm_core.sources.base import Post, SweepContext

MARK = "HSM_MARK"
"""variable in the environment of every process of a sweep: sweep directory, epoch, source"""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
"""what numerical libraries read to learn how many threads to start"""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalSource(AgentSource):
    type = "local"

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        wanted = gpus.request(config.gpus, gpus_per_task)
        if wanted is None or wanted["per_task"] == 0:
            return cores()
        try:
            devices = gpus.leasable(**wanted, environ=inherited(config))
        except gpus.GpuError:
            return 1  # the agent finds the same, and says so where only this source is lost
        return leases.capacity(len(devices), wanted["per_task"])

    @property
    def has_gpu(self) -> bool:
        if self.config.gpus is None and "gpus" not in self.describe():
            return any(Path("/proc/driver/nvidia/gpus").glob("*"))
        return super().has_gpu

    @property
    def load(self) -> float | None:
        return os.getloadavg()[0] / cores()

    def start(self, sweep: SweepContext, post: Post) -> None:
        for key in ("conda_env", "setup", "module_commands"):
            if getattr(self.config, key):
                raise SourceError(
                    f"{self.name}: {key} does not work on a local source; "
                    f"name the interpreter to use with compute_sources.{self.name}.python"
                )
        if sweep.config.memory_per_task is not None and not process.LINUX:
            raise SourceError(f"{self.name}: memory_per_task needs Linux; leave it out to run tasks without a limit")
        if sweep.epoch > 1:
            end_processes(f"{sweep.directory}:", below=sweep.epoch)
        super().start(sweep, post)

    def collect(self, attempts: object) -> None:
        """The output directories are in the sweep directory from the start."""

    def _open(self) -> Line:
        python = self.config.python or sys.executable
        found = shutil.which(os.path.expanduser(python))
        if found is None:
            raise SourceError(f"{self.name}: the interpreter {python} can't be found or run")
        agent = Path(hsm_core.remote.__file__).with_name("__main__.py")
        mode = self.config.worker or self._sweep.config.worker
        isolation = self.config.isolation or self._sweep.config.isolation
        folders = [str(self._sweep.payload), str(self._sweep.records)]
        arguments = [*folders, mode, isolation, self._log, json.dumps(self._wanted)]
        Path(self._log).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            child = subprocess.Popen(
                [found, *process.interpreter_flags(), str(agent), "agent", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        return _Child(child)

    def _environment(self) -> dict[str, str]:
        threads = dict.fromkeys(THREAD_VARIABLES, str(self._sweep.threads_per_task))
        env = {**threads, **inherited(self.config)}
        env["HSM_SWEEP_ID"] = self._sweep.id
        env["HSM_SWEEP_DIR"] = str(self._sweep.directory)
        env[MARK] = self._mark
        return env

    @property
    def _mark(self) -> str:
        return f"{self._sweep.directory}:{self._sweep.epoch}:{self.name}"

    def _fence(self) -> None:
        end_processes(self._mark)


def inherited(config: SourceConfig) -> dict[str, str]:
    """What an agent inherits: our own environment, and what the source sets."""
    values: Mapping[str, object] = config.env.get("set") or {}
    return {**os.environ, **{name: str(value) for name, value in values.items()}}


class _Child(Line):
    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None and child.stdout is not None
        super().__init__(child.stdin, child.stdout)
        self._child = child

    def wait(self, timeout: float) -> None:
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(3.0)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def marked_processes(mark: str, below: int | None = None) -> list[psutil.Process]:
    """Processes of this user whose mark starts so; with `below`, only those of earlier epochs."""
    found = []
    for candidate in psutil.process_iter():
        try:
            value = candidate.environ().get(MARK, "")
        except (psutil.Error, OSError):
            continue
        if candidate.pid == os.getpid() or not value.startswith(mark):
            continue
        if below is None or int(value[len(mark) :].split(":")[0]) < below:
            found.append(candidate)
    return found


def end_processes(mark: str, below: int | None = None, patience: float = 3.0) -> None:
    """End all processes so marked. Afterwards none is left.

    Agents get `patience` seconds to end their tasks and leave records; the rest is killed.
    """
    processes = marked_processes(mark, below)
    for candidate in processes:
        try:
            if "agent" in candidate.cmdline():
                candidate.terminate()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(processes, patience)
    while stubborn:
        for candidate in stubborn:
            try:
                candidate.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(stubborn, 1.0)
        stubborn = marked_processes(mark, below)
