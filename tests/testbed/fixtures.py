"""Fixtures over the hosts of `tests.testbed.sshd`; a folder's conftest.py imports those it wants."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testbed.environment import make_environment
from tests.testbed.network import NetnsHost, remove_line
from tests.testbed.sshd import ClientKey, SshHome, SshHost, need, remove_leftovers

MakeHost = Callable[..., SshHost]
"""Takes what `SshHost` takes, but for the key"""


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> ClientKey:
    """The key that every host lets in."""
    need(["sshd", "ssh-keygen", "useradd", "setpriv"], "a host of one's own")
    for user in remove_leftovers():
        remove_line(user)
    return ClientKey(tmp_path_factory.mktemp("client_key"))


@pytest.fixture
def ssh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshHome:
    """$HOME with an empty `.ssh`; no agent."""
    home = SshHome(tmp_path / "ssh_home")
    monkeypatch.setenv("HOME", str(home.folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def make_host(client_key: ClientKey) -> Iterator[MakeHost]:
    """Makes hosts that run until the test ends; the test's `ssh_home` does not know them yet."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(SshHost(client_key, *args, **options))


@pytest.fixture
def netns_host(client_key: ClientKey, ssh_home: SshHome) -> Iterator[NetnsHost]:
    """A host at the end of a line of its own, whose key the test's known_hosts has."""
    with NetnsHost(client_key) as host:
        ssh_home.trust(host)
        yield host


@pytest.fixture
def ssh_host(make_host: MakeHost, ssh_home: SshHome) -> SshHost:
    """A host whose key the test's known_hosts has."""
    host = make_host()
    ssh_home.trust(host)
    return host


@pytest.fixture(scope="session")
def far_python() -> Iterator[Path]:
    """The interpreter of an environment that every user here may use, with Hydra in it and nothing of ours."""
    folder = Path(tempfile.mkdtemp(prefix="hsmt-env"))
    folder.chmod(0o755)
    yield make_environment(folder / "env", "cloudpickle")
    shutil.rmtree(folder)
