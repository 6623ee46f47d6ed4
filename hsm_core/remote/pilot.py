"""A pilot: a long job of a scheduler whose agent takes tasks as they come.

Its arguments are the folder of its batch and its number in that; `batch.json` there has what the launcher wrote
(`hsm_core.sources.hpc.pilot_jobs`). The agent is that of every source, with its door in a folder of the node's own, and
a gate beside it (`hsm_core.remote.gate`). The mark `<pilot>.0.started` says where that is; the pilot's result record
and `<pilot>.0.ended` come when the agent has ended, of which nothing runs any more then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from hsm_core.remote import lines, process
from hsm_core.remote.element import begin
from hsm_core.remote.gate import Gate, own_names
from hsm_core.remote.record import FORMAT, put

PATIENCE = 20.0
"""seconds in which an agent opens its door"""
LAST_WORDS = 2.0
"""seconds that the last words of an agent have to go through the gate"""


def main(args: list[str]) -> NoReturn:
    """The batch's folder, and the pilot's number."""
    batch, spec, marks = begin(args)
    process.adopt_orphans()
    signals = process.wakeup_pipe(signal.SIGCHLD, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hsm-") as place:
        os.chdir(place)  # a socket's path may have 107 bytes only, see unix(7)
        agent = _start_agent(batch, place)
        gate = Gate(batch["secret"], lines.SOCKET)
        try:
            if _opened(agent):
                where = {"gate": own_names(batch["home"]), "port": gate.port}
                marks.started(host=socket.gethostname(), pid=agent.pid, output_dir=None, **where)
            while agent.poll() is None and not marks.called_off():
                select.select([signals], [], [], marks.patience)
                if signal.SIGTERM in process.drain(signals):
                    process.send(agent.pid, signal.SIGTERM)
        finally:
            process.end_descendants(signals, 0.0, process.reap)
            gate.close(LAST_WORDS)
            os.chdir("/")
    code = 1 if agent.returncode is None else agent.returncode
    put(os.path.join(batch["records"], f"{spec['id']}.json"), _record(spec, code, time.monotonic() - began))
    marks.end()
    sys.exit(code)


def _start_agent(batch: Mapping[str, Any], place: str) -> subprocess.Popen[bytes]:
    threads = max(1, len(os.sched_getaffinity(0)) // batch["slots"])
    return subprocess.Popen(
        [
            *(sys.executable, *process.interpreter_flags(), os.path.join(os.path.dirname(__file__), "__main__.py")),
            *("agent", batch["mode"], place, str(batch["patience"])),
        ],
        stdin=subprocess.DEVNULL,
        env={**dict.fromkeys(batch["threads"], str(threads)), **os.environ},
        start_new_session=True,
    )


def _opened(agent: subprocess.Popen[bytes]) -> bool:
    """Wait for the agent's door to open; False where the agent has ended, or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while agent.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as door, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            door.connect(lines.SOCKET)
            return True
        time.sleep(0.005)
    return False


def _record(spec: Mapping[str, Any], code: int, duration: float) -> dict[str, Any]:
    done = {"status": "completed"} if code == 0 else {"status": "failed", "cause": "lost"}
    words = "" if code == 0 else f"its agent ended with {code}"
    facts = {key: spec[key] for key in ("task", "attempt", "epoch")}
    return {"format": FORMAT, **facts, **done, "message": words, "duration": round(duration, 6)}
