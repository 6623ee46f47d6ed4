"""Tasks on a machine that is reached by SSH, through an agent there that needs no connection to go on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import SourceDown, SourceUp
from hsm_core.exceptions import HsmError, SourceError, Unavailable
from hsm_core.remote import gpus, marks
from hsm_core.sources import environment
from hsm_core.sources.agent import AgentSource
from hsm_core.sources.base import CommandResult, Health, Post, SweepContext
from hsm_core.sources.local import THREAD_VARIABLES
from hsm_core.sources.outpost import Outpost
from hsm_core.sources.remote_line import RemoteLine
from hsm_core.ssh.program import Program
from hsm_core.task import Attempt, Cause, Outcome

log = logging.getLogger(__name__)


class SshSource(AgentSource):
    type = "ssh"
    outlives_launcher = True
    shares_files = False

    def __init__(self, name: str, config: SourceConfig, slots: int) -> None:
        super().__init__(name, config, slots)
        self._outpost = Outpost(name, config, "visitor")
        self._left: list[Attempt] = []
        """attempts that the agent is to be asked about once there is one"""
        self._down: str | None = None
        """why the agent can't be reached now"""

    @classmethod
    def default_slots(cls, config: SourceConfig, gpus_per_task: float | None) -> int:
        wanted = gpus.request(config.gpus, gpus_per_task)
        return 1 if wanted is None or wanted["per_task"] == 0 else 0

    # --- the way to the agent

    def warm_up(self, directory: Path, sweep: HsmConfig, threads_per_task: int) -> None:
        self._outpost.warm_up(sweep)

    def start(self, sweep: SweepContext, post: Post) -> None:
        self._outpost.begin(sweep, post)
        super().start(sweep, post)

    def _connect(self) -> None:
        try:
            super()._connect()
        except SourceError as e:
            left, self._left = self._left, []
            self._bury(left, f"its source can't be reached any more: {e}")
            raise
        left, self._left = self._left, []
        if left:
            self.attach(left)

    def _open(self) -> RemoteLine:
        self._line = None
        self._outpost.look_at_code()
        line = RemoteLine(self._reach, self._sweep.epoch, self._on_down, self._on_up)
        line.open()
        try:
            self._outpost.wait_for_code()
        except HsmError as e:
            line.send({"do": "stop", "grace": 0.0})
            line.hang_up(2.0)
            raise SourceError(f"{self._outpost.where}: {e}") from e
        self._down = None
        return line

    def _reach(self) -> Program:
        return self._outpost.reach(self._wanted_there)

    def _wanted_there(self) -> Mapping[str, Any]:
        """What the visitor to our agent is told."""
        config = self._sweep.config
        variables, warnings = environment.given(self.config)
        for words in warnings:
            self._outpost.tell_once(words)
        mark = marks.mark(self._outpost.place, self._sweep.epoch, self.name)
        return {
            "source": self.name,
            "mode": self._mode(config),
            "patience": config.compute.orphan_timeout,
            "threads": {"variables": THREAD_VARIABLES, "each": config.threads_per_task, "slots": self.slots},
            "environment": {**variables, marks.MARK: mark},
            "folders": [os.path.join(".hsm", "agents", self.name)],
        }

    def _beginning(self) -> dict[str, Any]:
        hsm = os.path.join(self._outpost.place, ".hsm")
        return {
            **super()._beginning(),
            "payload": os.path.join(hsm, self._sweep.payload.name),
            "records": os.path.join(hsm, "results"),
            "log": os.path.join(hsm, "agents", f"{self.name}.log"),
            "variables": {"HSM_SWEEP_ID": self._sweep.id, "HSM_SWEEP_DIR": self._outpost.place},
        }

    def _fence(self) -> None:
        """The visitor that starts another agent ends what is left of the one before."""

    def _on_down(self, why: str) -> None:
        self._down = why.removeprefix(f"{self._outpost.where}: ")
        self._post(SourceDown(self.name, f"{self._outpost.where}: {self._down}. Its tasks go on there."))

    def _on_up(self) -> None:
        self._down = None
        self._post(SourceUp(self.name))

    def _end_of_agent(self) -> str:
        fault = self._line.fault if isinstance(self._line, RemoteLine) else None
        return fault or super()._end_of_agent()

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "address": self._outpost.connection.address, "shares_files": self.shares_files}

    @property
    def _log(self) -> str:
        path = os.path.join(self._outpost.place, ".hsm", "agents", f"{self.name}.log")
        return f"{self._outpost.connection.address}:{path}"

    def _check(self) -> None:
        if self._down is not None:
            raise Unavailable(f"{self._outpost.where} can't be reached: {self._down}")
        if not isinstance(self._line, RemoteLine) or self._line.hung_up:
            raise Unavailable(f"{self._outpost.where}: it has no agent now")

    # --- attempts

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        late = self._outpost.late(attempts)
        at_once = [attempt for attempt in attempts if attempt not in late]
        if at_once:
            super().submit(at_once)
        if late:
            with self._lock:
                self._active.update((a.id, a) for a in late)
            self._outpost.send_after(late, super().submit)

    def attach(self, attempts: Sequence[Attempt]) -> None:
        if not isinstance(self._line, RemoteLine) or self._line.hung_up:
            self._left.extend(attempts)
            return
        self._check()
        self._ask_for(attempts)

    def cancel(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        late = self._outpost.take_back(attempts)
        super().cancel(attempts)
        for attempt_id in late:
            self._finished(attempt_id, Outcome.failed(Cause.CANCELLED, "ended before it was started"))

    def run_command(self, command: Sequence[str], timeout: float = 30.0) -> CommandResult:
        self._check()
        return super().run_command(command, timeout)

    def health(self) -> Health | None:
        self._check()
        return super().health()

    def collect(self, attempts: Sequence[Attempt]) -> None:
        self._check()
        self._outpost.collect(attempts)

    def _started(self, event: Mapping[str, Any]) -> None:
        folder = self._outpost.home(event.get("output_dir"))
        if event["id"] in self._active:
            self._outpost.began(event["id"], folder, event.get("missing"))
        super()._started({**event, "output_dir": folder})

    def _outcome(self, attempt_id: str, record: object) -> Outcome:
        return self._outpost.outcome(attempt_id, record)

    # --- the end

    def stop(self, timeout: float = 10.0) -> None:
        self._outpost.give_up_waiting()
        super().stop(timeout)
        if self._down is None:
            self._outpost.clean()
        else:
            where, why = self._outpost.where, self._down
            log.warning("%s can't be told that the sweep ends: %s. What runs there goes on.", where, why)
        self._outpost.part()

    def leave(self, timeout: float = 10.0) -> None:
        self._stopping = True
        self._outpost.give_up_waiting()
        if self._line is not None:
            self._hang_up(0.0)
        self._outpost.part()
