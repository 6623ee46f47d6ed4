"""A scheduler within this process: it starts the elements of arrays at once, and says what a test wants it to say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Mapping

from hsm_core.remote import process
from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.scheduler import Job
from hsm_core.sources.hpc.states import JobState, Phase


class StubScheduler:
    system = "stub"
    calls = 0

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        """those that were taken"""
        self.asked = 0
        """how often it was asked for states"""
        self.on_submit: Callable[[Job], None] = lambda job: None
        self.on_states: Callable[[], None] = lambda: None
        """may raise what a scheduler would"""
        self.most = 100
        self.idle = False
        """whether it starts nothing"""
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """There is nothing to learn."""

    def facts(self) -> str:
        return "a stub"

    def largest_array(self) -> int:
        return self.most

    def submit(self, job: Job) -> str:
        self.on_submit(job)
        self.jobs.append(job)
        name = str(len(self.jobs))
        for index in range(0 if self.idle else job.count):
            self.running[f"{name}_{index}"] = subprocess.Popen([*job.command, str(index), "0"], start_new_session=True)
        return name

    def find(self, token: str) -> str | None:
        found = [str(number) for number, job in enumerate(self.jobs, 1) if job.token == token]
        return found[0] if found else None

    def states(self, batches: Collection[Batch], ended: Collection[str]) -> Mapping[str, JobState]:
        self.asked += 1
        self.on_states()
        names = [self.element(str(batch.job), index) for batch in batches for index in range(len(batch.attempts))]
        return {name: self._state(name) for name in names}

    def _state(self, name: str) -> JobState:
        if name not in self.running:
            return JobState(name, Phase.PENDING, "Priority")
        ended = self.running[name].poll() is not None
        return JobState(name, Phase.COMPLETED if ended else Phase.RUNNING, node="n1")

    def element(self, job: str, index: int) -> str:
        return f"{job}_{index}"

    def log(self, batch: Batch, index: int) -> str:
        return os.path.join(batch.folder, f"{index}.err")

    def cancel(self, elements: Collection[str]) -> None:
        for name in elements:
            if name in self.running:
                process.send(self.running[name].pid, 15)
            else:
                self.running[name] = subprocess.Popen(["true"])

    def end(self) -> None:
        for child in self.running.values():
            process.send(child.pid, 9, group=True)
            child.wait()
