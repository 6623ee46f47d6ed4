"""A cluster whose login node is reached by SSH: what is asked for there, and how what its jobs leave comes home."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.sources.base import Post, SweepContext
from hsm_core.sources.hpc.home import Home, Submit
from hsm_core.sources.hpc.site import Call, Lost, Mark, Site
from hsm_core.sources.outpost import Outpost
from hsm_core.ssh import deploy
from hsm_core.ssh.program import Program
from hsm_core.ssh.visit import in_time
from hsm_core.task import Attempt, Outcome

LAG = 1.0
"""seconds between two looks at files there"""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""seconds before the second try to connect again; each next pause is twice as long, up to the longest"""


class There(Site):
    """A login node; `reach` comes to `hsm_core.remote.site` there, again after each loss of the connection."""

    def __init__(self, reach: Callable[[], Program]) -> None:
        self.lag = LAG
        self._reach = reach
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._pause = 0.0
        self._try_at = 0.0
        self._why = ""

    def ask(self, calls: Sequence[Call], patience: float) -> list[Any]:
        with self._lock:
            program = self._program or self._come_back()
            self._program = None  # until it has answered all that it was asked
            try:
                with in_time(program, patience):
                    program.stdin.write(json.dumps(calls).encode() + b"\n")
                    answers = [_answer(program) for _ in calls]
            except (BrokenPipeError, EOFError) as e:
                program.close()
                raise Lost(f"the connection was lost: {e}") from e
            except BaseException:
                program.close()
                raise
            self._program = program
            return answers

    def _come_back(self) -> Program:
        """Connect, unless that was tried a moment ago. Raises Lost and SourceError."""
        if time.monotonic() < self._try_at:
            raise Lost(self._why)
        try:
            program = self._reach()
        except Unavailable as e:
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
            self._try_at, self._why = time.monotonic() + self._pause, str(e)
            raise Lost(str(e)) from e
        self._pause = 0.0
        return program


def _answer(program: Program) -> Any:
    """Raises EOFError where there is none, SourceError for what is none."""
    text = program.stdout.readline(LINE_LIMIT)
    if not text.endswith(b"\n"):
        if len(text) == LINE_LIMIT:
            raise SourceError(f"what our program there answers is longer than {LINE_LIMIT >> 20} MiB")
        raise EOFError(program.errors().strip()[-500:] or "our program there did not answer")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SourceError(f"what our program there answers can't be understood: {e}") from e


class FarHome(Home):
    """That of jobs on a cluster whose login node is reached by SSH."""

    shared = False

    def __init__(self, name: str, config: SourceConfig) -> None:
        self._outpost = Outpost(name, config, "site")
        self.site = There(lambda: self._outpost.reach(lambda: {"folders": []}))

    @property
    def where(self) -> str:
        return self._outpost.where

    def warm_up(self, sweep: HsmConfig) -> None:
        self._outpost.warm_up(sweep)

    def find(self, sweep: SweepContext, post: Post) -> None:
        self._outpost.begin(sweep, post)
        self.site.start()
        self.directory = self._outpost.place

    def wait_for_code(self) -> None:
        self._outpost.wait_for_code()

    @property
    def interpreter(self) -> Sequence[str]:
        return [self._outpost.executable, "-u", deploy.program(self._outpost.base)]

    def facts(self) -> Mapping[str, object]:
        return {"address": self._outpost.connection.address, "shares_files": False}

    def began(self, attempt_id: str, mark: Mark) -> str | None:
        folder = self._outpost.home(mark.output_dir)
        self._outpost.began(attempt_id, folder, mark.missing)
        return folder

    def outcome(self, attempt_id: str, record: object) -> Outcome:
        return self._outpost.outcome(attempt_id, record)

    def unwritable(self, error: OSError, folder: str) -> str:
        return str(error.strerror)

    def submit(self, attempts: Sequence[Attempt], submit: Submit) -> None:
        late = self._outpost.late(attempts)
        submit([attempt for attempt in attempts if attempt not in late])
        if late:
            self._outpost.send_after(late, submit)

    def take_back(self, attempts: Sequence[Attempt]) -> Set[str]:
        return self._outpost.take_back(attempts)

    def collect(self, attempts: Sequence[Attempt]) -> None:
        self._outpost.connection.open()
        self._outpost.collect(attempts)

    def hurry(self) -> None:
        self._outpost.give_up_waiting()

    def part(self, *, ended: bool) -> None:
        if ended:
            self._outpost.clean()
        self._outpost.part()
