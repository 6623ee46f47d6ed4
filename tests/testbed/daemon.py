"""A daemon of a testbed, with all that comes from it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from hsm_core.testing import wait_until

KEEPER = Path(__file__).with_name("keeper.py")


class Daemon:
    """One program in the foreground, on behalf of a keeper; it does not run before `start`.

    `environ` is added to our own environment. What the program writes goes to the end of `log`.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environ = dict(environ)
        self._keeper: subprocess.Popen[str] | None = None
        self._process: psutil.Process | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        """Run it, and return once it is ready; where it ends before that, the test fails with what it said."""
        self.launch()
        self.wait_until(ready)

    def launch(self) -> None:
        """Run it."""
        environ = {**os.environ, **self._environ}
        program = shutil.which(self._command[0], path=environ["PATH"])
        if program is None:
            pytest.fail(f"{self.name} can't be started: there is no {self._command[0]} in {environ['PATH']}")
        if self._keeper is None:
            # In a session of its own: a Ctrl-C is ours to hear, and the keeper's only when we have ended.
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps([[program, *self._command[1:]], str(self._log), environ]) + "\n")
        self._keeper.stdin.flush()
        pid = int(self._keeper.stdout.readline())
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:  # it has ended already
            self._process = None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once it is ready; where it ends before that, the test fails with what it said."""

        def ended_or_ready() -> bool:
            if not self.alive:
                pytest.fail("it ended")
            return ready()

        try:
            wait_until(ended_or_ready, "it to be ready")
        except pytest.fail.Exception as failure:
            pytest.fail(f"{self.name} did not start: {failure.msg}. The end of its log:\n{self.said()[-3000:]}")

    @property
    def alive(self) -> bool:
        return self._process is not None and _lives(self._process)

    def said(self) -> str:
        """All it wrote so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kept(self) -> list[psutil.Process]:
        """All that came from it and lives, in whatever session, itself included."""
        if self._keeper is None:
            return []
        try:
            found = psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in found if _lives(process)]

    def kill(self, *names: str) -> None:
        """Kill what came from it and has one of these names, and return once that is gone; the others live on."""
        _kill([process for process in self.kept() if _name(process) in names])

    def terminate(self) -> None:
        """Ask it to end, and return once it has; what came from it lives on."""
        if self._process is not None:
            process = self._process
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
            wait_until(lambda: not _lives(process), f"{self.name} to end")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It does not move inside this; others can connect to it, and get no answer."""
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it and all that came from it; nothing happens the second time."""
        if self._keeper is not None:
            keeper, self._keeper, self._process = self._keeper, None, None
            # Popen's own end: closes the pipes, which is what the keeper waits for, and waits in turn for the keeper.
            with keeper:
                pass


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(_lives, processes)), "killed processes to end")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
