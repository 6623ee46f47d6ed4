"""A host that comes back with another key in mid-sweep may be anybody: it gets nothing more, and others do its work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsm_core.events import SourceDisabled
from hsm_core.task import TaskState
from hsm_core.testing import wait_until
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.sshd import SshHost


@pytest.fixture
def far(make_far: MakeFar, ssh_host: SshHost) -> FarSweep:
    """One slot there, one here."""
    return make_far(ssh_host, {"max_parallel_tasks": 1}, local=1, compute={"orphan_timeout": 1.0})


def test_another_host_key(far: FarSweep) -> None:
    launcher = far.launch("+x=range(3)", "+gated=0")
    wait_until(lambda: len(far.running()) == 2, f"a task on each source; launcher said:\n{far.said()}")
    moved = far.running()["far"]
    far.host.new_host_key()
    far.wait_heard(SourceDisabled)
    (disabled,) = far.heard(SourceDisabled)
    assert disabled.source == "far"
    assert "its host key CHANGED" in disabled.reason
    Path(os.environ["HOME"], "gate").touch()
    assert launcher.wait(60) == 0, far.said()
    state = far.state()
    assert {task.state for task in state.tasks.values()} == {TaskState.COMPLETED}
    assert far.submissions() == {index: 2 if index == moved else 1 for index in range(3)}
    assert not far.output(moved, "starts").read_text().startswith(far.there(moved, "starts").read_text())
    far.open_gate()
    far.audit()
