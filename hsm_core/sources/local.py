"""Tasks on this machine, through an agent that is our child."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

import hsm_core.remote
from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.remote import gpus, leases, marks, process
from hsm_core.sources import environment
from hsm_core.sources.agent import AgentSource
from hsm_core.sources.base import Post, SweepContext
from hsm_core.sources.line import Line, PipeLine

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

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._warm: _Child | None = None
        """an agent that waits for its sweep"""

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
        interpreter(self.name, self.config)
        if sweep.config.memory_per_task is not None and not process.LINUX:
            raise SourceError(f"{self.name}: memory_per_task needs Linux; leave it out to run tasks without a limit")
        if sweep.epoch > 1:
            marks.end_processes(f"{sweep.directory}:", below=sweep.epoch)
        super().start(sweep, post)

    def collect(self, attempts: object) -> None:
        """The output directories are in the sweep directory from the start."""

    def warm_up(self, directory: Path, sweep: HsmConfig, threads_per_task: int) -> None:
        with contextlib.suppress(SourceError):
            mark = marks.mark(directory, 1, self.name)
            self._warm = self._spawn(self._mode(sweep), mark, threads_per_task)

    def stop(self, timeout: float = 10.0) -> None:
        self._let_go()
        super().stop(timeout)

    def _let_go(self) -> None:
        """End the agent that waits, if there is one."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.hang_up(1.0)
            warm.close()

    def _open(self) -> Line:
        if self._sweep.epoch > 1:
            self._let_go()  # it is marked as one of a new sweep
        warm, self._warm = self._warm, None
        return warm or self._spawn(self._mode(self._sweep.config), self._mark, self._sweep.threads_per_task)

    def _hang_up(self, timeout: float) -> None:
        super()._hang_up(timeout)
        assert isinstance(self._line, _Child)
        words, self._line.early_words = self._line.early_words, b""
        if words:
            Path(self._log).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
                log.write(words)

    def _spawn(self, mode: str, mark: str, threads: int) -> _Child:
        found = interpreter(self.name, self.config)
        agent = Path(hsm_core.remote.__file__).with_name("__main__.py")
        try:
            with contextlib.ExitStack() as opened:
                early = opened.enter_context(tempfile.TemporaryFile())
                child = subprocess.Popen(
                    [found, *process.interpreter_flags(), str(agent), "agent", mode],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=early,
                    env={**dict.fromkeys(THREAD_VARIABLES, str(threads)), **inherited(self.config), marks.MARK: mark},
                    start_new_session=True,
                )
                opened.pop_all()
        except OSError as e:
            raise SourceError(f"{self.name}: its agent can't be started: {e}") from e
        return _Child(child, early)

    @property
    def _mark(self) -> str:
        return marks.mark(self._sweep.directory, self._sweep.epoch, self.name)

    def _fence(self) -> None:
        marks.end_processes(self._mark)


def interpreter(name: str, config: SourceConfig) -> str:
    """The Python that a source's agent runs with. Raises SourceError, also for settings that mean nothing here."""
    for key in ("conda_env", "setup", "module_commands"):
        if getattr(config, key):
            raise SourceError(
                f"{name}: {key} does not work on a local source; "
                f"name the interpreter to use with compute_sources.{name}.python"
            )
    python = config.python or sys.executable
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise SourceError(f"{name}: the interpreter {python} can't be found or run")
    return found


def inherited(config: SourceConfig) -> dict[str, str]:
    """What an agent inherits: our own environment, and what the source sets."""
    return {**os.environ, **environment.given(config)[0]}


class _Child(PipeLine):
    def __init__(self, child: subprocess.Popen[bytes], early: IO[bytes]) -> None:
        assert child.stdin is not None and child.stdout is not None
        super().__init__(child.stdin, child.stdout)
        self._child = child
        self._early = early
        self._reading = threading.Lock()
        self.early_words = b""
        """what an agent that has ended said on its standard error before it knew where its log is"""

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
        with self._reading:  # `stop` may come while the reader hangs up
            if not self._early.closed:
                self._early.seek(0)
                self.early_words = self._early.read()
                self._early.close()
