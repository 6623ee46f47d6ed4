"""What Hydra's suites share whose tasks are elsewhere, on a host or behind one that is reached by SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testbed.environment import make_environment
from tests.testbed.sshd import SshHome, SshHost


@pytest.fixture(scope="module")
def python(host: SshHost) -> Path:
    """An interpreter there, with what the suite's own task functions need."""
    return make_environment(host.folder / "environment", "cloudpickle", "pytest")


@pytest.fixture
def launcher_name() -> str:
    return "hsm"


def trusted_source(
    kind: str, host: SshHost, python: Path, slots: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Overrides by which a trusted source of this type is the only one; its key is known in a home of its own."""
    home = SshHome(folder / "ssh_home")
    home.trust(host)
    monkeypatch.setenv("HOME", str(home.folder))
    far = f"type:{kind},host:'{host.address}',port:{host.port},user:{host.user},ssh_key:'{host.key.path}',trusted:true"
    return [f"+hydra.launcher.compute_sources={{far:{{{far},python:'{python}',max_parallel_tasks:{slots}}}}}"]
