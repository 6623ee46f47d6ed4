"""`hsm sources test` for a host: from its name to an agent that answers there. Nothing but the agent's code stays."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.sources import examine
from hsm_core.sources.steps import Status, Step, Walk, bare
from hsm_core.ssh import visit
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.host_keys import entries_of, fingerprint
from hsm_core.ssh.identities import Identities
from hsm_core.ssh.program import Program
from hsm_core.ssh.route import Hop, route
from hsm_core.transfer import rsync

LOGGING_IN = ("connect", "host key", "log in")
JUMPS = "jump hosts"
GOODBYE = 10.0
"""seconds the agent has to end"""
_LOOK = "printf '%s\\n' \"${SHELL:-a shell}\"; uname -sm"


def check(name: str, config: SourceConfig, tell: Callable[[Step], None]) -> None:
    """Go all the way to an agent on the host; each step is told once it is done."""
    steps = ["gpus", examine.AGENT, examine.ROUND_TRIP]
    go(name, config, Walk([*way(config), *steps], tell), ["gpus"], lambda connection, where: None)


def way(config: SourceConfig) -> list[str]:
    """The steps to a host where tasks could run."""
    return ["resolve", *LOGGING_IN, "shell", "python", *_on_host(config)]


def _on_host(config: SourceConfig) -> list[str]:
    return ["folder", "disk", *(["project"] if config.project_dir is not None else []), "hydra", "rsync"]


def go(
    name: str, config: SourceConfig, walk: Walk, more: list[str], further: Callable[[Connection, str], None]
) -> None:
    """Go to the host and look around there, for these things too; and further with the connection and the address."""
    try:
        hops = route(name, config, Identities(config.ssh_key), False, _unheard)
        walk.reach("resolve", _resolve(hops[0]))
        if len(hops) > 1:
            walk.add(JUMPS)
        connection = Connection(name, config, reached=_on_the_way(walk, hops))
        with contextlib.closing(connection):
            connection.open()
            walk.reach("shell", _shell(connection))
            _look_around(walk, connection, config, hops[-1].where, [*_on_host(config), *more])
            if not walk.over:
                further(connection, hops[-1].where)
    except SourceError as e:
        walk.fail(bare(str(e), name))


def _unheard(where: str, step: str, told: str) -> None:
    """This route is only looked at."""


def _resolve(hop: Hop) -> str:
    """The addresses of the host that is reached first. Raises SourceError."""
    command = hop.settings.get("proxycommand")
    if command is not None:
        return f"left to ProxyCommand {command}"
    try:
        found = socket.getaddrinfo(hop.link.host, hop.link.port, type=socket.SOCK_STREAM)
    except socket.gaierror as e:
        raise SourceError(f"the name {hop.link.host} is not known ({e.strerror}); is `host` right?") from e
    except UnicodeError as e:
        raise SourceError(f"{hop.link.host} is no name of a host: {e}") from e
    return ", ".join(dict.fromkeys(str(address[0]) for *_, address in found))


def _on_the_way(walk: Walk, hops: list[Hop]) -> Callable[[str, str, str], None]:
    """What makes steps of that which is reached while logging in."""
    *jumps, last = hops

    def reached(where: str, step: str, told: str) -> None:
        if jumps and where == jumps[-1].where and step == "log in":
            walk.reach(JUMPS, ", ".join(jump.address for jump in jumps))
        elif where != last.where:
            return
        elif step == "connect":
            walk.reach(step, last.address.partition("@")[2])
        elif step == "host key":
            places = [e.place for e in entries_of(last.peer) if told.startswith(f"{fingerprint(e.key)} ")]
            walk.reach(step, f"{told}, {places[0]}" if places else told)
        else:
            walk.reach(step, f"as {last.link.user} with {told}")

    return reached


def _shell(connection: Connection) -> str:
    program = connection.run(_LOOK)
    try:
        said = [program.stdout.readline(1000).decode(errors="replace").strip() for _ in range(2)]
        program.wait(visit.PATIENCE)
    finally:
        program.close()
    return " on ".join(said)


def _look_around(walk: Walk, connection: Connection, config: SourceConfig, where: str, names: list[str]) -> None:
    """The steps from Python on. Raises SourceError."""
    token = visit.new_token()
    program = visit.start(connection, config, token, "checker")
    try:
        with visit.in_time(program, visit.PATIENCE):
            base, project = _board(walk, program, token, config, where)
            findings: Mapping[str, Callable[[Mapping[str, Any]], examine.Finding]] = {
                "folder": lambda facts: examine.folder_found(facts, base),
                "disk": examine.disk_found,
                "project": lambda facts: examine.project_found(facts, project),
                "hydra": examine.hydra_found,
                "rsync": lambda facts: rsync_found(facts, rsync.unusable(), connection),
                "gpus": lambda facts: examine.gpus_found(facts, config),
            }
            examine.examine(
                walk,
                program,
                lambda: visit.answer(program, token, config, where),
                {name: findings[name] for name in names},
                config,
                base,
                project,
            )
        program.stdin.close()
        with contextlib.suppress(Unavailable):
            program.wait(GOODBYE)
    finally:
        program.close()


def _board(walk: Walk, program: Program, token: str, config: SourceConfig, where: str) -> tuple[str, str]:
    """Our folder there and the project's, once there is a Python that can be used. Raises SourceError."""
    try:
        found = visit.boarded(program, token, config, where)
    except visit.Unfit as e:
        if e.facts["problem"] == "not writable":
            walk.reach("python", examine.python_found(e.facts))
        raise
    walk.reach("python", examine.python_found(found))
    named = config.project_dir or ""
    return found["base"], os.path.join(found["home"], named.removeprefix("~/"))


def rsync_found(facts: Mapping[str, Any], lack: str | None, connection: Connection) -> examine.Finding:
    """By what files travel. `lack`: why rsync here can't be used."""
    version = facts["version"]
    if lack is None:
        lack = "rsync is not installed there" if version is None else rsync.unfit(str(version), "there")
    if lack is None:
        found = re.search(r"\d[\d.]*", str(version))
        return Status.GOOD, found[0] if found is not None else str(version)
    try:
        connection.sftp().close()
    except Unavailable as e:
        return Status.FAILED, f"{lack}; nor is SFTP to be had ({e}). Install rsync 3.1 or newer"
    return Status.WARNING, f"{lack}; files are transferred by SFTP, which takes longer"
