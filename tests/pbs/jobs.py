"""What tests run as jobs. It goes there by value, as jobs can't import the tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import submitit


def square(number: int) -> int:
    return number * number


def whoami() -> dict[str, Any]:
    here = submitit.JobEnvironment()
    return {
        "job": here.job_id,
        "rank": (here.global_rank, here.local_rank, here.node, here.num_tasks, here.num_nodes),
        "hosts": len(here.hostnames),
        "directory": os.getcwd(),
        "text": os.environ.get("TEXT"),
    }


def fail() -> None:
    raise ArithmeticError("this can't be divided")


def end(how: str) -> None:
    print("before the end", flush=True)
    os._exit(5) if how == "exit" else os.kill(os.getpid(), 9)


def wait_at(path: str) -> None:
    Path(path).touch()
    time.sleep(600)


class Counter:
    """Counts how often it was called. The first call takes for ever; what follows it goes on from its checkpoint."""

    def __init__(self, started: str) -> None:
        self.started = started
        self.runs = 0

    def __call__(self) -> int:
        self.runs += 1
        if self.runs == 1:
            Path(self.started).touch()
            time.sleep(600)
        return self.runs

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)


def ignore_all(path: str) -> None:
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Path(path).touch()
    time.sleep(600)
