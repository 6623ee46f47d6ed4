"""The user's ssh configuration, read as `ssh` does: ~/.ssh/config and /etc/ssh/ssh_config, with what they include.

paramiko understands all that is asked for here but `Include`, which is written out before it sees the text.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import paramiko

from hsm_core.exceptions import SourceError
from hsm_core.sources.ssh.host_keys import shown_path

FILES = ("~/.ssh/config", "/etc/ssh/ssh_config")
DEPTH = 16
"""how deep files may include each other, as in ssh"""

_ACTIVE = "hsmisactive"
"""an option no ssh has, to ask whether a block counts for a host"""


def load(host: str, user: str | None, port: int | None) -> paramiko.SSHConfig:
    """The configuration for one host; `user` and `port` win over what stands in the files, as on ssh's command line.

    Raises SourceError, naming the file, where it can't be read or understood.
    """
    given = [f"Host {host}"]
    given += [f"User {user}"] if user is not None else []
    given += [f"Port {port}"] if port is not None else []
    config = paramiko.SSHConfig.from_text("\n".join(given))
    for name in FILES:
        file = Path(os.path.expanduser(name))
        text = "\n".join(_expanded(file, file.parent, host, 0))
        try:
            # Each text begins anew outside of any block.
            config.parse(iter(text.split("\n")))
        except paramiko.ConfigParseError as e:
            raise SourceError(f"{shown_path(file)}: {e}") from e
    return config


def _expanded(file: Path, base: Path, host: str, depth: int) -> Iterator[str]:
    """The lines of a file; those of the files it includes stand in place of each `Include`."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise SourceError(f"{shown_path(file)} can't be read: {e.strerror}") from e
    block = "Host *"
    for line in lines:
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() in ("host", "match"):
            block = line
        if keyword.lower() != "include":
            yield line
        elif depth == DEPTH:
            raise SourceError(f"{shown_path(file)}: files include each other more than {DEPTH} deep")
        elif _counts(block, host):
            for included in _named(rest, base):
                yield from _expanded(included, base, host, depth + 1)
            yield block


def _named(rest: str, base: Path) -> Iterator[Path]:
    """The files that the words behind `Include` name."""
    for pattern in shlex.split(rest):
        yield from (Path(name) for name in sorted(glob(str(base / os.path.expanduser(pattern)))))


def _counts(block: str, host: str) -> bool:
    """Whether what stands in a block is meant for the host."""
    try:
        return _ACTIVE in paramiko.SSHConfig.from_text(f"{block}\n{_ACTIVE} yes").lookup(host)
    except paramiko.ConfigParseError:
        return False  # told when the whole is read
