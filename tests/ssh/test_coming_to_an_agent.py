"""The way to an agent, and the line to it, when the connection is lost in between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.sources.remote_line import RemoteLine
from hsm_core.ssh import deploy
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.program import Program
from hsm_core.ssh.visit import Visit, arrive, boarded, new_token, start, visit
from hsm_core.testing import wait_until
from tests.testbed.sshd import SshHost


@pytest.fixture
def connection(ssh_host: SshHost) -> Iterator[Connection]:
    connection = Connection("far", ssh_host.config())
    connection.open()
    yield connection
    connection.close()


def lose(connection: Connection, host: SshHost) -> None:
    host.kill_sessions()
    wait_until(lambda: not connection.alive, "the connection to be lost")


def test_lost_before_the_agent_is_told_anything(connection: Connection, ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python))

    def prepare(found: Mapping[str, Any]) -> Visit:
        lose(connection, ssh_host)
        return Visit({}, b"")

    with pytest.raises(Unavailable, match="far: the program has ended, or the connection was lost"):
        visit(arrive(connection, config, "far", "visitor"), config, "far", prepare)


def test_lost_before_our_code_is_there(connection: Connection, ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python))
    token = new_token()
    program = start(connection, config, token, "visitor")
    wait_until(program.channel.recv_ready, "what the boot program says")
    lose(connection, ssh_host)
    with pytest.raises(Unavailable, match="far: the program has ended, or the connection was lost"):
        boarded(program, token, config, "far")


def test_lost_before_the_agent_is_greeted(connection: Connection, ssh_host: SshHost) -> None:
    def reach() -> Program:
        program = connection.run("exec cat")
        lose(connection, ssh_host)
        return program

    line = RemoteLine(reach, 1, lambda why: None, lambda: None)
    with pytest.raises(Unavailable, match="the connection was lost"):
        line.open()
    line.close()


def test_our_code_that_nobody_used_for_long_is_removed_when_another_version_comes(
    connection: Connection, ssh_host: SshHost, far_python: Path
) -> None:
    config = ssh_host.config(python=str(far_python))
    versions = ssh_host.home / ".hsm" / "agent"
    for name, days in (("old", 91), ("used", 89)):
        (versions / name / "hsm_core").mkdir(parents=True)
        os.utime(versions / name, (0, time.time() - days * 24 * 3600 - 60))
    for path in (ssh_host.home / ".hsm", *(ssh_host.home / ".hsm").rglob("*")):
        os.chown(path, ssh_host.uid, -1)
    token = new_token()
    program = start(connection, config, token, "visitor")
    boarded(program, token, config, "far")
    digest = deploy.archive()[1]
    wait_until(
        lambda: sorted(path.name for path in versions.iterdir()) == sorted(["used", digest]), "the old one to go"
    )
    program.close()


CONDA_SH = """export CONDA_EXE='{root}/bin/conda'
__conda_exe() (
    "$CONDA_EXE" "$@"
)
__conda_activate() {{
    \\local ask_conda
    ask_conda="$(PS1="${{PS1:-}}" __conda_exe shell.posix "$@")" || \\return
    \\eval "$ask_conda"
    \\hash -r
}}
conda() {{
    case "${{1-}}" in
        activate|deactivate) __conda_activate "$@" ;;
        *) __conda_exe "$@" ;;
    esac
}}
"""
"""what `conda init` has shells read, as far as activating goes (conda 4.8 and later)"""
CONDA = """#!/bin/sh
echo "talking" >&2
[ "$1 $2" = "shell.posix activate" ] && [ -d "{root}/envs/$3" ] || exit 1
echo "PATH='{root}/envs/$3/bin:$PATH'"
echo "export PATH CONDA_DEFAULT_ENV='$3'"
"""


@pytest.fixture
def conda_host(ssh_host: SshHost, far_python: Path) -> SshHost:
    """A host that has conda where nobody's PATH leads to, and in it an environment named lab."""
    root = ssh_host.home / "miniconda3"
    for folder in ("bin", "etc/profile.d", "envs/lab/bin"):
        (root / folder).mkdir(parents=True)
    (root / "etc/profile.d/conda.sh").write_text(CONDA_SH.format(root=root))
    (root / "bin/conda").write_text(CONDA.format(root=root))
    (root / "bin/conda").chmod(0o755)
    (root / "envs/lab/bin/python3").symlink_to(far_python)
    for path in (root, *root.rglob("*")):
        os.chown(path, ssh_host.uid, -1, follow_symlinks=False)
    return ssh_host


def test_an_environment_of_conda(connection: Connection, conda_host: SshHost) -> None:
    token = new_token()
    config = conda_host.config(python=None, conda_env="lab")
    program = start(connection, config, token, "visitor")
    found = boarded(program, token, config, "far")
    assert found["executable"] == f"{conda_host.home}/miniconda3/envs/lab/bin/python3"
    program.close()


def test_an_environment_that_conda_does_not_have(connection: Connection, conda_host: SshHost) -> None:
    token = new_token()
    config = conda_host.config(conda_env="lap")
    program = start(connection, config, token, "visitor")
    with pytest.raises(SourceError, match="conda has no environment lap, or can't activate it"):
        boarded(program, token, config, "far")
    program.close()
