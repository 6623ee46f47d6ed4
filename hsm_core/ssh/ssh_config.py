"""The user's ssh configuration, read as `ssh` does: ~/.ssh/config and /etc/ssh/ssh_config, with what they include.

paramiko understands all that is asked for here but two things, which are settled in the text before it sees that:
`Include` is written out, and `Match exec` is answered (paramiko lets such a program read our standard input).
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import paramiko

from hsm_core.exceptions import SourceError
from hsm_core.ssh.host_keys import shown_path

FILES = ("~/.ssh/config", "/etc/ssh/ssh_config")
DEPTH = 16
"""how deep files may include each other, as in ssh"""

_ACTIVE = "hsmisactive"
"""an option no ssh has, to ask whether a block counts for a host"""


def load(host: str, user: str | None, port: int | None, files: Sequence[str] = FILES) -> paramiko.SSHConfig:
    """The configuration for one host; `user` and `port` win over what stands in the files, as on ssh's command line.

    Runs the programs of `Match exec`. Raises SourceError, naming the file, where it can't be read or understood.
    """
    text = [f"Host {host}"]
    text += [f"User {user}"] if user is not None else []
    text += [f"Port {port}"] if port is not None else []
    config = paramiko.SSHConfig.from_text("\n".join(text))
    for name in files:
        file = Path(os.path.expanduser(name))
        text.append("Host *")
        before = len(text)
        try:
            _expand(file, file.parent, host, text, 0)
            config.parse(iter(text[before:]))
        except (paramiko.ConfigParseError, ValueError) as e:
            raise SourceError(f"{shown_path(file)}: {e}") from e
    return config


def _expand(file: Path, base: Path, host: str, text: list[str], depth: int) -> None:
    """Add the lines of a file to `text`, which holds all that comes before."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise SourceError(f"{shown_path(file)} can't be read: {e.strerror}") from e
    block = "Host *"
    for line in lines:
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() == "match":
            line = _answered(rest, host, text)
        if keyword.lower() in ("host", "match"):
            block = line
        if keyword.lower() in ("userknownhostsfile", "globalknownhostsfile") and rest.endswith('"'):
            line += " none"  # else paramiko takes off the quotes, which may be those of several names
        if keyword.lower() != "include":
            text.append(line)
        elif depth == DEPTH:
            raise SourceError(f"{shown_path(file)}: files include each other more than {DEPTH} deep")
        elif _counts(block, host, text):
            for included in _named(rest, base):
                _expand(included, base, host, text, depth + 1)
            text.append(block)


def _named(rest: str, base: Path) -> Iterator[Path]:
    """The files that the words behind `Include` name."""
    for pattern in shlex.split(rest):
        yield from (Path(name) for name in sorted(glob(str(base / os.path.expanduser(pattern)))))


def _counts(block: str, host: str, text: list[str]) -> bool:
    """Whether what stands in a block is meant for the host, by all that stands before it."""
    return _ACTIVE in paramiko.SSHConfig.from_text("\n".join([*text, block, f"{_ACTIVE} yes"])).lookup(host)


def _answered(criteria: str, host: str, text: list[str]) -> str:
    """A Match line with the answer in place of each program; one is run only if all before it on the line fits."""
    words = shlex.split(criteria)
    line = ["Match"]
    while words:
        word = words.pop(0)
        if word.lower().lstrip("!") != "exec" or not words:
            line.append(word)
            continue
        command = words.pop(0)
        if len(line) == 1 or _counts(shlex.join(line), host, text):
            fits = _succeeds(command, host, text) != word.startswith("!")
        else:
            fits = False
        line += ["host" if fits else "!host", "*"]
    return shlex.join(line)


def _succeeds(command: str, host: str, text: list[str]) -> bool:
    """Run a program of `Match exec`, with its tokens (ssh_config(5), TOKENS) as they are known so far."""
    known = paramiko.SSHConfig.from_text("\n".join(text)).lookup(host)
    me = getpass.getuser()
    tokens = {"h": known["hostname"], "n": host, "p": known.get("port", "22"), "r": known.get("user", me), "u": me}
    tokens |= {"d": os.path.expanduser("~"), "l": socket.gethostname(), "%": "%"}
    command = re.sub("%([a-z%])", lambda found: tokens.get(found[1], found[0]), command)
    shell = os.environ.get("SHELL", "/bin/sh")
    done = subprocess.run([shell, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0
