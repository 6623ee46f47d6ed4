"""A connection to this very machine, without SSH: for faults that a real one does not have at a given moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from hsm_core.exceptions import Unavailable


class Output:
    """What a program prints; `watch` hears of the number of bytes before they are handed on."""

    def __init__(self, pipe: IO[bytes], watch: Callable[[int], object]) -> None:
        self._pipe = pipe
        self._watch = watch

    def read(self, size: int) -> bytes:
        data = self._pipe.read(size)
        self._watch(len(data))
        return data


class LocalProgram:
    """A script run by /bin/sh, with the ways of a program at the end of a connection."""

    def __init__(
        self, script: str, home: Path, env: dict[str, str], watch: Callable[[LocalProgram, int], object]
    ) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", os.fsencode(script)],
            cwd=home,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout = Output(self.process.stdout, lambda count: watch(self, count))
        self._words = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        while piece := self.process.stderr.read(1 << 16):
            self._words = (self._words + piece)[-1 << 16 :]

    def errors(self) -> str:
        return self._words.decode("utf-8", "replace")

    def wait(self, timeout: float | None) -> int:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Unavailable("the connection is lost") from None
        if code < 0:
            raise Unavailable("the connection is lost")
        # As at the end of a real connection: by now its words are known, unless something it started still has them.
        self._reader.join(1.0)
        return code

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def release(self) -> None:
        """Close the pipes, which nobody reads any more."""
        self.close()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class LocalShell:
    """Scripts start in the folder `home`, with these variables beside the usual ones.

    `watch` may be set to what is called with the program and the number of bytes each time some of its output is read.
    """

    address = "me@here:22"

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self.env = {**os.environ, "HOME": str(home), **env}
        self.scripts: list[str] = []
        self.programs: list[LocalProgram] = []
        self.watch: Callable[[LocalProgram, int], object] = lambda program, count: None

    def run(self, script: str) -> LocalProgram:
        self.scripts.append(script)
        program = LocalProgram(script, self.home, self.env, lambda program, count: self.watch(program, count))
        self.programs.append(program)
        return program

    def have_only(self, folder: Path, **programs: str) -> None:
        """From now on only these programs are found there, each a script of /bin/sh."""
        folder.mkdir()
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        self.env["PATH"] = str(folder)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalShell]:
    """One with a home of its own, of an unusual name."""
    home = tmp_path / "a 'home' with $(odd) name"
    home.mkdir()
    shell = LocalShell(home)
    yield shell
    for program in shell.programs:
        program.release()
