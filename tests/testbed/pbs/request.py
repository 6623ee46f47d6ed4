"""What a qsub of the stand-in was asked for."""

from __future__ import annotations

import getopt
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.testbed.pbs.refusal import Refused

OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
RESOURCES = {"ncpus", "mem", "ngpus", "mpiprocs", "ompthreads", "host", "vmem"}
UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}


@dataclass
class Request:
    """One submission."""

    arguments: str
    workdir: str
    script: str | None = None
    command: Sequence[str] = ()
    name: str = "STDIN"
    queue: str = "workq"
    account: str | None = None
    project: str = "_pbs_project_default"
    chunks: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(1, {"ncpus": "1"})])
    select: str = "1:ncpus=1"
    place: str = "pack"
    walltime: int | None = None
    indices: Sequence[int] = ()
    indices_text: str = ""
    max_run: int | None = None
    hold: bool = False
    rerunnable: bool = True
    join: str = "n"
    keep: str = "n"
    out: str | None = None
    err: str | None = None
    depend: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    print_id: bool = True

    def total(self, resource: str) -> int:
        """How much of it all chunks ask for; memory in bytes."""
        return sum(count * amount(chunk.get(resource, "0")) for count, chunk in self.chunks)


def parse(argv: Sequence[str], workdir: str, environ: Mapping[str, str], stdin: str) -> Request:
    """Read a command line, and the directives in the script it names. Raises Refused as qsub would."""
    options, rest = _getopt(list(argv[1:]))
    for flag, value in options:
        _take(Request("", workdir), flag, value, environ)
    request = Request(arguments=" ".join(argv[1:]), workdir=workdir)
    if "--" in argv:
        if not rest:
            raise Refused("", 2, "qsub")
        request.command = rest
    elif rest:
        if len(rest) > 1:
            raise Refused("", 2, "qsub")
        try:
            request.script = Path(workdir, rest[0]).read_text()
        except OSError:
            raise Refused("qsub: script file:: No such file or directory", 1) from None
        request.name = Path(rest[0]).name
    else:
        request.script = stdin
    if request.script is not None and "\r\n" in request.script:
        raise Refused("qsub: script contains cr, lf", 1)
    # The command line wins over the script.
    for flag, value in [*_directives(request.script or ""), *options]:
        _take(request, flag, value, environ)
    return request


def _getopt(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    try:
        return getopt.getopt(argv, OPTIONS)
    except getopt.GetoptError as e:
        raise Refused(f"qsub: invalid option -- '{e.opt}'", 2, "qsub") from None


def _directives(script: str) -> list[tuple[str, str]]:
    found = []
    for line in script.splitlines():
        if line.startswith("#PBS"):
            found += _getopt(shlex.split(line[4:]))[0]
        elif line.strip() and not line.startswith(("#", ":")):
            break
    return found


def _take(request: Request, flag: str, value: str, environ: Mapping[str, str]) -> None:
    illegal = Refused(f"qsub: illegal {flag} value", 2, "qsub")
    if flag == "-N":
        if re.search(r"[\s/:]", value) or not value:
            raise illegal
        if len(value) > 230:
            raise Refused("qsub: Job name is too long ", 2)
        request.name = value
    elif flag == "-J":
        found = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%(\d+))?", value)
        if found is None or int(found[1]) >= int(found[2]):
            raise illegal
        request.indices = range(int(found[1]), int(found[2]) + 1, int(found[3] or 1))
        request.indices_text = value.split("%")[0]
        request.max_run = int(found[4]) if found[4] else None
    elif flag == "-l":
        _resources(request, value)
    elif flag == "-W":
        kind, _, what = value.partition("=")
        if kind == "depend":
            if not re.fullmatch(r"after(ok|notok|any)?(:\d+(\[\])?(\.\w+)?)+", what):
                raise illegal
            request.depend = what
    elif flag == "-r":
        if value not in ("y", "n"):
            raise illegal
        request.rerunnable = value == "y"
    elif flag == "-v":
        request.variables = _variables(value, environ)
    elif flag == "-V":
        request.variables = dict(environ)
    elif flag in ("-h", "-z"):
        setattr(request, {"-h": "hold", "-z": "print_id"}[flag], flag == "-h")
    elif flag in ("-q", "-A", "-P", "-j", "-k", "-o", "-e"):
        names = {"-q": "queue", "-A": "account", "-P": "project", "-j": "join", "-k": "keep", "-o": "out", "-e": "err"}
        setattr(request, names[flag], value)


def _variables(value: str, environ: Mapping[str, str]) -> dict[str, str]:
    """`-v A=1,B`: plain values only, as quotes and backslashes come out wrong there."""
    found = {}
    for part in value.split(","):
        name, has_value, text = part.partition("=")
        if not has_value and name not in environ:
            raise Refused("qsub: cannot send environment with the job", 1)
        found[name] = text if has_value else environ[name]
    return found


def _resources(request: Request, value: str) -> None:
    # Commas part resources; those of select are parted by colons.
    for part in value.split(","):
        name, _, what = part.partition("=")
        if name == "select":
            request.select, request.chunks = what, [_chunk(text) for text in what.split("+")]
            request.place = "free" if request.place == "pack" else request.place
        elif name == "place":
            request.place = what
        elif name == "walltime":
            request.walltime = _seconds(what)
        elif name == "nodes":
            raise Refused("qsub: Cannot be used with select or place: nodes", 6)
        elif name not in RESOURCES:
            raise Refused(f"qsub: Unknown resource Resource_List.{name}", 187)
        else:
            request.chunks = [(1, {"ncpus": "1", name: what})]


def _chunk(text: str) -> tuple[int, dict[str, str]]:
    first, *parts = text.split(":")
    count, parts = (int(first), parts) if first.isdigit() else (1, [first, *parts])
    chunk = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in RESOURCES:
            raise Refused(f"qsub: Unknown resource: {name}", 187)
        if not re.fullmatch(r"\d+[kmgt]?b?" if name in ("mem", "vmem") else r"\d+", value) and name != "host":
            raise Refused(f"qsub: Illegal attribute or resource value select.{name}", 166)
        chunk[name] = value
    return count, {"ncpus": "1", **chunk}


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if found is None:
        raise Refused("qsub: Illegal attribute or resource value Resource_List.walltime", 166)
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def amount(text: str) -> int:
    """A number, or bytes of memory."""
    found = re.fullmatch(r"(\d+)([kmgt]?b?)", text)
    assert found is not None, text
    return int(found[1]) * UNITS[found[2]]
