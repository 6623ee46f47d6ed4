"""`hsm sources ping`: whether a source is within reach now, and how far away it is. It needs no Python there."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.selection import Selected
from hsm_core.sources.steps import bare

PATIENCE = 30.0
"""seconds for all answers"""
SCRIPT = r"""printf '%s\n' "$( { cat /proc/loadavg || uptime; } 2>/dev/null | head -n 1)"
printf '%s\n' "$( { getconf _NPROCESSORS_ONLN || nproc; } 2>/dev/null | head -n 1)"
while read -r hsm_line; do printf '%s\n' "$hsm_line"; done
"""
"""says how busy the host is, and then whatever it is told"""


@dataclass(frozen=True)
class Ping:
    reachable: bool | None
    """None: this version of hsm can't tell"""
    address: str
    """`user@host:port`; of this machine nothing"""
    connect: float | None = None
    """ms until we were logged in"""
    round_trips: tuple[float, ...] = ()
    """ms of each request to a program there and back"""
    load: float | None = None
    """running processes per core, on average over the last minute"""
    problem: str = ""


def ping(selected: Selected, count: int) -> Ping:
    """Reach a source, and exchange `count` words with a shell there."""
    name, config = selected.name, selected.config
    if config.type == "local":
        return _ping_local(count)
    if config.type == "ssh" or (config.type == "hpc" and config.host is not None):
        return _ping_host(name, config, count)
    return Ping(None, "", problem=f"sources of type {config.type} can't be pinged by this version of hsm")


def _ping_host(name: str, config: SourceConfig, count: int) -> Ping:
    from hsm_core.ssh.connection import Connection
    from hsm_core.ssh.visit import in_time

    connection = Connection(name, config)
    began = time.monotonic()
    try:
        with contextlib.closing(connection):
            connection.open()
            connect = 1000 * (time.monotonic() - began)
            program = connection.run(SCRIPT)
            with contextlib.closing(program), in_time(program, PATIENCE):
                load, trips = _exchange(program.stdin, program.stdout, count)
    except SourceError as e:
        return Ping(False, connection.address, problem=bare(str(e), name))
    return Ping(True, connection.address, connect, trips, load)


def _ping_local(count: int) -> Ping:
    with subprocess.Popen(["/bin/sh", "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        late = threading.Timer(PATIENCE, child.kill)
        late.daemon = True
        late.start()
        try:
            load, trips = _exchange(child.stdin, child.stdout, count)
        except Unavailable as e:
            return Ping(False, "", problem=str(e))
        finally:
            late.cancel()
    return Ping(True, "", None, trips, load)


def _exchange(requests: Any, answers: Any, count: int) -> tuple[float | None, tuple[float, ...]]:
    """The load per core that the script tells, and the ms of each round trip. Raises Unavailable."""
    load, cores = (answers.readline(1000).decode(errors="replace") for _ in range(2))
    trips = []
    for number in range(count):
        word = f"ping {number}\n".encode()
        began = time.monotonic()
        try:
            requests.write(word)
            requests.flush()
        except OSError as e:
            raise Unavailable(f"the shell there ended: {e}") from e
        if answers.readline(1000) != word:
            raise Unavailable("the shell there does not answer")
        trips.append(1000 * (time.monotonic() - began))
    return load_per_core(load, cores), tuple(trips)


def load_per_core(load: str, cores: str) -> float | None:
    """The load of the last minute, out of /proc/loadavg or of what `uptime` prints, per core; None where not told."""
    found = re.search(r"\d+[.,]\d+", load.rpartition("average")[2])
    if found is None or not cores.strip().isdecimal() or int(cores) == 0:
        return None
    return float(found[0].replace(",", ".")) / int(cores)


def pinging(count: int) -> Callable[[Selected, Callable[[Ping], None]], None]:
    """Work for `hsm_core.sources.steps.at_once`."""
    return lambda selected, tell: tell(ping(selected, count))
