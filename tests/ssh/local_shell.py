"""A connection to this very machine, without SSH: for faults that a real one does not have at a given moment."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import IO

from hsm_core.exceptions import Unavailable


class LocalProgram:
    """A script run by /bin/sh, with the ways of a program at the end of a connection."""

    def __init__(self, script: str, home: Path, env: dict[str, str]) -> None:
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
        self.stdout: IO[bytes] = self.process.stdout
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
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class LocalShell:
    """Scripts start in the folder `home`, with these variables beside the usual ones."""

    address = "me@here:22"

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self.env = {**os.environ, "HOME": str(home), **env}
        self.scripts: list[str] = []
        self.programs: list[LocalProgram] = []

    def run(self, script: str) -> LocalProgram:
        self.scripts.append(script)
        program = LocalProgram(script, self.home, self.env)
        self.programs.append(program)
        return program
