"""The agent alone: what holds when nobody is left to end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import hsm_core.remote
from hsm_core.config import SourceConfig
from hsm_core.remote import process
from hsm_core.sources.local import LocalSource
from hsm_core.testing import Bench


def test_agent_ends_when_an_attempt_was_handed_to_a_zygote_that_hangs(tmp_path: Path) -> None:
    """The launcher is gone and the zygote never forks: there is no supervisor whose end could be heard."""
    bench = Bench(LocalSource("local", SourceConfig(type="local"), slots=1), tmp_path)
    bench.write_payload()
    hsm = bench.directory / ".hsm"
    main = Path(hsm_core.remote.__file__).with_name("__main__.py")
    folders = [str(hsm / "payload"), str(hsm / "results")]
    with subprocess.Popen(
        [sys.executable, str(main), "agent", *folders, "fork", "process", str(tmp_path / "log"), "null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
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
