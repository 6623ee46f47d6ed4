"""Sweeps as real processes that are hurt on purpose, and the audit that follows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hsm_core.audit import Finding, gather, judge, read_account
from hsm_core.journal import replay
from hsm_core.owner import current
from hsm_core.remote import marks
from hsm_core.state import SweepState
from hsm_core.task import TaskState
from hsm_core.testing import wait_until

APP = """
import os, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    with open(out / "starts", "a") as f:
        f.write(f"{os.getpid()}\\n")
    gate = Path(HydraConfig.get().runtime.cwd) / "gate"
    while cfg.x >= cfg.get("gated", 10**9) and not gate.exists():
        time.sleep(0.02)
    if cfg.x == cfg.get("bad"):
        raise ValueError(f"bad point {cfg.x}")
    time.sleep(cfg.get("sleep", 0))
    (out / "result.txt").write_text(f"{cfg.x}\\n")
    return cfg.x * 10


if __name__ == "__main__":
    main()
"""


class Sweep:
    """One sweep directory, and launchers working on it one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "sweep"
        self.subdir: Callable[[int], str] = str
        """a task's output directory, by its index"""
        self.log = folder / "launcher.log"
        self.launcher: subprocess.Popen[bytes] | None = None
        """the last one"""
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.crashpoint = ""
        """where the launchers that are started from now on die, as hsm_core.crashpoint wants it"""
        (folder / "app.py").write_text(APP)
        # Two slots, however many cores there are.
        (folder / "hsm_config.yaml").write_text("compute_sources: {local: {type: local, max_parallel_tasks: 2}}\n")

    def launch(self, *overrides: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a launcher; `before` stands in front of its command line, as `nice` would."""
        command = [sys.executable, "app.py", "-m", "hydra/launcher=hsm", f"hydra.sweep.dir={self.directory}"]
        return self._start([*before, *command, *overrides])

    def launch_on_terminal(self, *overrides: str) -> int:
        """Start a launcher on a terminal of its own; returns the other end, whose closing closes the terminal."""
        ours, terminal = pty.openpty()
        command = [sys.executable, "app.py", "-m", "hydra/launcher=hsm", f"hydra.sweep.dir={self.directory}"]
        self._start([*command, *overrides], stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=_control)
        os.close(terminal)
        return ours

    def complete(self, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        return self._start([*before, sys.executable, "-m", "hsm_core", "complete", str(self.directory), *options])

    def hsm(self, *arguments: str, code: int = 0) -> str:
        """Run a command that looks at the sweep, or starts a launcher of its own; returns all it printed."""
        command = [sys.executable, "-m", "hsm_core", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _start(self, command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            ours: dict[str, Any] = {"env": {**os.environ, "HSM_CRASHPOINT": self.crashpoint}}
            ours |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.launcher = subprocess.Popen(command, cwd=self.folder, start_new_session=True, **(ours | streams))
        self.launchers.append(self.launcher)
        return self.launcher

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> int:
        """Signal the launcher, wait for its end and return its exit code."""
        assert self.launcher is not None
        self.launcher.send_signal(signum)
        return self.launcher.wait(60)

    def end_launchers(self) -> None:
        """Kill those that still run, with all in their process groups."""
        for launcher in self.launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()

    def signal_group(self, signum: signal.Signals) -> None:
        """Signal the launcher's process group, as a terminal does."""
        assert self.launcher is not None
        os.killpg(self.launcher.pid, signum)

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def output(self, index: int, name: str) -> Path:
        return self.directory / self.subdir(index) / name

    def wait_for(self, index: int, name: str) -> None:
        wait_until(self.output(index, name).exists, f"{name} of task {index}; the launcher said:\n{self.said()}")

    def pid(self, index: int) -> int:
        """The process that runs a task for the first time, once it has begun."""
        starts = self.output(index, "starts")
        wait_until(lambda: starts.exists() and "\n" in starts.read_text(), f"the start of task {index}")
        return int(starts.read_text().split()[0])

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def has_begun(self) -> bool:
        journal = self.directory / ".hsm" / "journal.jsonl"
        return journal.exists() and b"\n" in journal.read_bytes()

    def state(self) -> SweepState:
        return replay(self.directory / ".hsm" / "journal.jsonl").state

    def finished(self) -> dict[int, tuple[str, int]]:
        """Content and time of the results of all completed tasks."""
        found = {}
        for task in self.state().tasks.values():
            if task.state is TaskState.COMPLETED:
                path = self.output(task.index, "result.txt")
                found[task.index] = (path.read_text(), path.stat().st_mtime_ns)
        return found

    def wait_for_finished(self, count: int) -> None:
        """Wait until so many tasks have completed, or the launcher has ended."""
        launcher = self.launcher
        assert launcher is not None
        wait_until(lambda: len(self.finished()) >= count or launcher.poll() is not None, f"{count} finished tasks")

    def findings(self) -> list[Finding]:
        """What `hsm audit` finds, once every process of the sweep has ended."""
        self.wait_for_peace()
        account = read_account(self.directory / ".hsm" / "journal.jsonl")
        return judge(account, gather(self.directory, account.state), self.directory)

    def audit(self) -> None:
        """What holds when a launcher has ended in order: nothing is found, and completed tasks left their files."""
        assert self.findings() == [], self.said()
        for task in self.state().tasks.values():
            if task.state is TaskState.COMPLETED:
                assert self.output(task.index, "result.txt").is_file()

    def wait_for_peace(self) -> None:
        """Wait until no process of the sweep is left; agents may need a moment to end their tasks."""
        wait_until(lambda: not marks.marked(f"{self.directory}:"), "the last process of the sweep to end")


def _control() -> None:
    """Make standard input the controlling terminal of this new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path)
    yield sweep
    sweep.end_launchers()
    owner = current(sweep.directory / ".hsm")
    if owner is not None and owner.alive and owner.pid != os.getpid():  # a detached one
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGKILL)
    sweep.wait_for_peace()


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Launchers obey SIGINT, also where the tests themselves run in a background that ignores it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
