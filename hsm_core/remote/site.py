"""What a launcher does where a cluster's scheduler is: it runs programs, and reads and writes what is of jobs.

Each call has a name and arguments that are JSON, and so is its answer; none depends on one before. A launcher that is
there itself calls `answer`. For one elsewhere `main` does: after its beginning (`hsm_core.remote.delivery`) each line
of its standard input is a list of calls, `[name, arguments]`, and each of them is answered by one line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hsm_core.remote import batch, commands, process
from hsm_core.remote.delivery import Input, accept, say
from hsm_core.remote.record import whole


def main(args: list[str]) -> None:
    """A token, which stands before what is said first."""
    (token,) = args
    stream = Input()
    try:
        accept(stream)
    except OSError as e:
        say(token, problem="unfit", reason=str(e))
        sys.exit(1)
    say(token)
    while True:
        for name, arguments in json.loads(stream.line()):
            process.write_all(1, json.dumps(answer(name, arguments)).encode() + b"\n")


def answer(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a call asks for: its `value`, or the number of the error (`errno`) and `why` it can't be done."""
    try:
        return {"value": _CALLS[name](**arguments)}
    except OSError as e:
        path = f": {e.filename}" if e.filename is not None else ""
        return {"errno": e.errno or 0, "why": f"{e.strerror or e}{path}"}


def facts() -> dict[str, Any]:
    """The environment of programs there, and the user's name."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # of one that no database here knows the number will do
        user = str(os.getuid())
    return {"environ": dict(os.environ), "user": user}


def missing(programs: Sequence[str]) -> list[str]:
    """Those that are not on PATH."""
    return [program for program in programs if shutil.which(program) is None]


def run(argv: Sequence[str], changes: Mapping[str, str | None], timeout: float) -> dict[str, Any]:
    """Run a program with other values of variables, None: without them; `code` is None where it took too long.

    Raises OSError where it can't be started.
    """
    environ = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    return dataclasses.asdict(commands.run(argv, timeout, environ))


def absent(paths: Sequence[str]) -> list[str]:
    """Those of which nothing is there."""
    return [path for path in paths if not os.path.lexists(path)]


def put(path: str, text: str) -> None:
    """Put a file in place, of mode 0600 and whole. Raises OSError."""
    with whole(path) as file:
        file.write(text.encode(errors="surrogateescape"))


_CALLS: Mapping[str, Callable[..., Any]] = {
    **{call.__name__: call for call in (facts, missing, run, put, absent)},
    **{call.__name__: call for call in (batch.write, batch.submitted, batch.void, batch.remove)},
    **{call.__name__: call for call in (batch.find, batch.news, batch.begun, batch.left, batch.call_off)},
}
