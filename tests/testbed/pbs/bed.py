"""A PBS for tests: the site's own where there is one, and a stand-in of our own which runs jobs for real.

The stand-in is a process of this machine with a folder in /tmp; its commands are programs to be put first on PATH, that
find it by where they are. What it says is compared with recordings of a real server (tests/pbs/test_standin.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("qsub", "qstat", "qdel", "qsig", "qrerun", "qhold", "qrls", "qselect", "pbsnodes", "pbsdsh")
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Bed:
    """Where tests find PBS."""

    environ: Mapping[str, str]
    """with its commands on PATH"""


class StandIn(Bed):
    """A server of ours. A context manager: nothing of it is left behind `__exit__`."""

    def __init__(self, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hsmt-pbs"))
        self._settings = settings
        programs = self.folder / "bin"
        programs.mkdir()
        text = f"#!{sys.executable} -IS\n" + Path(__file__).with_name("client.py").read_text()
        for name in COMMANDS:
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        # Jobs read the profile of a home of their own: they are killed at any moment, while the user's may hold a lock.
        home = self.folder / "home"
        home.mkdir()
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        super().__init__({**os.environ, "PATH": path, "HOME": str(home)})

    def __enter__(self) -> StandIn:
        command = [sys.executable, "-m", "tests.testbed.pbs.daemon", str(self.folder)]
        self._daemon = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._daemon.stdout is not None
        if not self._daemon.stdout.readline():
            pytest.fail("the stand-in for PBS did not start; what it said is above")
        self.set(**self._settings)
        return self

    def __exit__(self, *exc: object) -> None:
        self._daemon.send_signal(signal.SIGCONT)
        self._daemon.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)  # where it did not come to that itself

    def set(self, **settings: Any) -> None:
        """Change `Settings` of `tests.testbed.pbs.server`.

        `up=False` takes the server down, `up=True` up again; `preempt=ID` requeues a running job.
        """
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.folder / "control"))
            line.sendall(json.dumps(settings).encode())
            line.shutdown(socket.SHUT_WR)
            line.recv(1 << 10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hears and says nothing inside this; its jobs run."""
        self._daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(signal.SIGCONT)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of its commands."""
        return subprocess.run(command, env={**self.environ}, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="session")
def pbs() -> Iterator[Bed]:
    """The PBS of this site, where its qsub is on PATH; else a stand-in."""
    if shutil.which("qsub"):
        yield Bed(os.environ)
        return
    with StandIn() as made:
        yield made


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A stand-in of the test's own, to be changed as it likes."""
    with StandIn() as made:
        yield made
