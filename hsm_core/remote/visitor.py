"""The launcher's visitor to an agent with a door: it leads a connection from another host to the agent's socket.

It begins as `hsm_core.remote.delivery` says, and starts the agent where there is none; from then on it passes bytes
both ways. Its exit code is 0 where the agent has hung up.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from hsm_core.remote import lines, marks, process
from hsm_core.remote.delivery import Input, accept, say

PATIENCE = 20.0
"""seconds in which an agent opens its door, or ends after it has closed it"""
_CHUNK = 1 << 16


class Unfit(Exception):
    """No agent can work here; says why."""


def main(args: list[str]) -> NoReturn:
    """A token, which stands before what is said to the launcher."""
    (token,) = args
    stream = Input()
    try:
        wanted = accept(stream)
        door = _enter(os.path.join(wanted["sweep"], ".hsm", "agents", wanted["source"]), wanted)
    except (OSError, Unfit) as e:
        say(token, problem="unfit", reason=str(e))
        sys.exit(1)
    say(token, hydra=_hydra())
    door.sendall(stream.rest())
    _pass_on(door)
    os._exit(0)


def _hydra() -> str | None:
    try:
        return importlib.metadata.version("hydra-core")
    except importlib.metadata.PackageNotFoundError:
        return None


def _enter(folder: str, wanted: Mapping[str, Any]) -> socket.socket:
    """A connection to the agent of this folder, which is started where there is none. Raises Unfit and OSError."""
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.chdir(folder)  # a socket's path may have 107 bytes only, see unix(7)
    agent: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if agent is None:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of an agent, for as long as it lives
                agent = _start_agent(folder, lock, wanted)
        door = socket.socket(socket.AF_UNIX)
        try:
            door.connect(lines.SOCKET)
            os.close(lock)
            return door
        except (FileNotFoundError, ConnectionRefusedError):
            door.close()
        if agent is not None and agent.poll() is not None:
            raise Unfit(f"its agent ended with {agent.returncode} before it was ready; see {_log(wanted)}")
        time.sleep(0.005)
    who = os.pread(lock, 1000, 0).decode(errors="replace")
    raise Unfit(f"its agent does not answer ({who or 'it says not where it runs'}); its lock is {folder}/lock")


def _start_agent(folder: str, lock: int, wanted: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start an agent that lives on without us. Nothing of an earlier one runs by then."""
    if importlib.util.find_spec("hydra") is None:
        raise Unfit(f"hydra-core is not installed for {sys.executable}")
    marks.end_processes(f"{wanted['sweep']}:")
    os.ftruncate(lock, 0)
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "__main__.py"), "agent", wanted["mode"]]
    log = os.open(_log(wanted), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        agent = subprocess.Popen(
            [*command, folder, str(wanted["patience"])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            env={**_threads(**wanted["threads"]), **os.environ, **wanted["environment"]},
            start_new_session=True,
        )
    finally:
        os.close(log)
    os.pwrite(lock, f"pid {agent.pid} on {socket.gethostname()}".encode(), 0)
    return agent


def _threads(variables: Sequence[str], each: int | None, slots: int) -> dict[str, str]:
    """What tells numerical libraries how many threads a task may have: unless said, its share of the cores."""
    return dict.fromkeys(variables, str(each or max(1, (os.cpu_count() or 1) // max(1, slots))))


def _log(wanted: Mapping[str, Any]) -> str:
    return os.path.join(wanted["sweep"], ".hsm", "agents", f"{wanted['source']}.log")


def _pass_on(door: socket.socket) -> None:
    """Pass bytes both ways until either side has hung up."""
    while True:
        ready, _, _ = select.select([0, door.fileno()], [], [])
        if door.fileno() in ready:
            try:
                chunk = door.recv(_CHUNK)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return
            try:
                process.write_all(1, chunk)
            except BrokenPipeError:
                os._exit(1)
        if 0 in ready:
            chunk = os.read(0, _CHUNK)
            if not chunk:
                os._exit(1)
            with contextlib.suppress(BrokenPipeError):  # its last words may still be there to be read
                door.sendall(chunk)
