"""The process of the stand-in: `python -m tests.testbed.pbs.daemon FOLDER`. With its stdin ends all of it.

In the folder are two sockets: `server`, at which the commands ask, and which is gone while the server is down; and
`control`, for tests: `{"up": false}` takes the server down, while jobs run on, `{"preempt": ID}` has the scheduler take
a job's place away, everything else is a setting.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tests.testbed.pbs.commands import Call, answer
from tests.testbed.pbs.machine import kill_session
from tests.testbed.pbs.server import Server


def main(folder: Path) -> None:
    server, chooser = Server(folder), selectors.DefaultSelector()
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    control = _listen(folder / "control")
    commands: socket.socket | None = _listen(folder / "server")
    for waited in (woken, control, commands, sys.stdin):
        assert waited is not None
        chooser.register(waited, selectors.EVENT_READ)
    print("ready", flush=True)
    try:
        while True:
            for key, _ in chooser.select(server.turn()):
                if key.fileobj is sys.stdin:
                    if not os.read(0, 1):
                        return
                elif key.fileobj is woken:
                    woken.recv(1 << 12)
                elif key.fileobj is commands and commands is not None:
                    _serve(commands, lambda asked: answer(server, Call(**asked)).__dict__)
                else:
                    for name, value in _serve(control, lambda asked: {}).items():
                        if name == "preempt":
                            server.preempt(value)
                        elif name != "up":
                            setattr(server.settings, name, value)
                        elif value and commands is None:
                            commands = _listen(folder / "server")
                            chooser.register(commands, selectors.EVENT_READ)
                        elif not value and commands is not None:
                            chooser.unregister(commands)
                            commands.close()
                            (folder / "server").unlink()
                            commands = None
    finally:
        for job in server.living():
            assert job.process is not None
            kill_session(job.process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _listen(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.bind(str(path))
    line.listen(128)
    return line


def _serve(listening: socket.socket, reply: Any) -> Any:
    """Take one connection: a JSON document comes, another one goes. Returns the first."""
    line, _ = listening.accept()
    with line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.setblocking(True)
        asked = json.loads(b"".join(iter(lambda: line.recv(1 << 16), b"")) or b"{}")
        line.sendall(json.dumps(reply(asked)).encode())
        return asked
    return {}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
