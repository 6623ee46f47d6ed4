"""The agent alone: what holds when nobody is left to end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import hsm_core.remote
from hsm_core.config import SourceConfig
from hsm_core.events import SourceDown, SourceEvent, SourceUp
from hsm_core.remote import process
from hsm_core.sources.agent import RESTARTS
from hsm_core.sources.line import PipeLine
from hsm_core.sources.local import LocalSource
from hsm_core.testing import Bench


def test_stopping_a_source_whose_agent_has_just_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the request to stop; that is no error."""
    source = LocalSource("local", SourceConfig(type="local"), slots=1)
    bench = Bench(source, tmp_path)
    bench.write_payload()
    noticed, stopped = threading.Event(), threading.Event()

    def post(event: SourceEvent) -> None:
        noticed.set()
        assert stopped.wait(60)

    source.start(bench.context(epoch=1), post)
    line = source._line
    assert isinstance(line, PipeLine)
    wait = line.wait

    def wait_for_the_reader_too(timeout: float) -> None:
        stopped.set()
        wait(timeout)

    monkeypatch.setattr(line, "wait", wait_for_the_reader_too)
    os.kill(source.describe()["pid"], signal.SIGKILL)
    assert noticed.wait(60)
    poll = select.poll()
    poll.register(line.requests, 0)
    assert poll.poll(60_000), "the request pipe still has a reader"
    source.stop(5.0)


def test_stopping_a_source_whose_agents_all_died(tmp_path: Path) -> None:
    source = LocalSource("local", SourceConfig(type="local"), slots=1)
    bench = Bench(source, tmp_path)
    bench.start()
    for _ in range(RESTARTS):
        os.kill(source.describe()["pid"], signal.SIGKILL)
        bench.wait(lambda event: isinstance(event, (SourceUp, SourceDown)) and getattr(event, "final", True))
    assert isinstance(bench.seen[-1], SourceDown)
    source.stop(5.0)


def test_agent_ends_when_an_attempt_was_handed_to_a_zygote_that_hangs(tmp_path: Path) -> None:
    """The launcher is gone and the zygote never forks: there is no supervisor whose end could be heard."""
    bench = Bench(LocalSource("local", SourceConfig(type="local"), slots=1), tmp_path)
    bench.write_payload()
    hsm = bench.directory / ".hsm"
    main = Path(hsm_core.remote.__file__).with_name("__main__.py")
    begin: dict[str, Any] = {"do": "begin", "payload": str(hsm / "payload"), "records": str(hsm / "results")}
    begin |= {"isolation": "process", "log": str(tmp_path / "log"), "variables": {}, "gpus": None}
    begin["manifests"] = False
    with subprocess.Popen(
        [sys.executable, str(main), "agent", "fork"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(json.dumps(begin).encode() + b"\n")
        agent.stdin.flush()
        assert json.loads(agent.stdout.readline())["ev"] == "ready"
        (zygote,) = process.children(agent.pid)
        os.kill(zygote, signal.SIGSTOP)
        attempt = {"id": "task_001.1.1", "name": "task_001", "task": 0, "attempt": 1, "epoch": 1, "source": "local"}
        attempt |= {"overrides": ["+do=return", "+value=1"], "timeout": None, "grace": 0.5, "memory": None}
        agent.stdin.write(json.dumps({"do": "run", "attempts": [attempt]}).encode() + b"\n")
        agent.stdin.close()
        try:
            assert agent.wait(15) == 0
        finally:
            agent.kill()
        (told,) = map(json.loads, agent.stdout)
    assert (told["ev"], told["id"], told["cause"]) == ("lost", "task_001.1.1", "cancelled")
