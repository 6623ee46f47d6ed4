"""Commands to a running sweep: small JSON files in `.hsm/control/`, put there by rename, answered by an event."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SUFFIX = ".json"


@dataclass(frozen=True)
class Command:
    """One command. `id` sorts by the time it was sent.

    `command` is empty for a file that is no command; `arguments["problem"]` then says why.
    """

    id: str
    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def send(hsm_dir: Path, command: str, **arguments: Any) -> str:
    """Leave a command for the sweep's launcher and return its id, which the answering event repeats.

    It is there as a whole or not at all. Raises OSError when it can't be written, TypeError for arguments
    that are not JSON.
    """
    text = json.dumps({"command": command, "arguments": arguments})
    spool = _spool(hsm_dir)
    with contextlib.suppress(FileExistsError):
        os.mkdir(spool, 0o700)
    command_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    new = spool / f".{command_id}.new"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text)
        os.rename(new, spool / (command_id + _SUFFIX))
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return command_id


class Spool:
    """The launcher's side: finds each command once."""

    def __init__(self, hsm_dir: Path) -> None:
        self._directory = _spool(hsm_dir)
        self._seen: set[str] = set()

    def poll(self) -> list[Command]:
        """The commands that came since the last poll, oldest first; one directory listing when there are none.

        A file that is no command is given back as one with an empty name, and renamed to `<id>.malformed`.
        Commands that an earlier launcher did not finish come again. Raises OSError when the spool can't be read.
        """
        try:
            with os.scandir(self._directory) as found:
                names = [entry.name for entry in found if entry.name.endswith(_SUFFIX) and entry.is_file()]
        except FileNotFoundError:
            return []
        commands = []
        for name in sorted(names):
            command_id = name.removesuffix(_SUFFIX)
            if command_id in self._seen:
                continue
            path = self._directory / name
            try:
                commands.append(_parse(command_id, path.read_bytes()))
            except FileNotFoundError:  # taken back by its sender
                continue
            except (ValueError, RecursionError, PermissionError) as e:
                os.replace(path, path.with_suffix(".malformed"))
                commands.append(Command(command_id, "", {"problem": f"{name} is no command: {e}"}))
                continue
            self._seen.add(command_id)
        return commands

    def done(self, command: Command) -> None:
        """Remove the command's file, once its answer is journaled; idempotent. Raises OSError where it can't."""
        (self._directory / (command.id + _SUFFIX)).unlink(missing_ok=True)
        self._seen.discard(command.id)


def _spool(hsm_dir: Path) -> Path:
    return hsm_dir / "control"


def _parse(command_id: str, content: bytes) -> Command:
    data = json.loads(content)
    command = data.get("command") if isinstance(data, dict) else None
    if not isinstance(command, str) or not command:
        raise ValueError("it names no command")
    arguments = data.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError("its arguments are no JSON object")
    return Command(command_id, command, arguments)
