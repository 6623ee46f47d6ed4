"""The connection to a host is lost while tasks run there: they never notice, and none runs twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core.events import SourceDown, SourceUp
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.network import NetnsHost

POINTS = "+x=range(6)"


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers give a host up that says nothing for few seconds."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("from hsm_core.ssh import login\nlogin.QUIET, login.SILENCE = 1, 4\n")
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_sessions_are_killed(far: FarSweep) -> None:
    launcher = far.launch(POINTS, "+gated=2")
    for index in (2, 3):
        far.wait_there(index)
    far.host.kill_sessions()
    far.wait_heard(SourceUp)
    far.host.kill_sessions()
    far.wait_heard(SourceUp, 2)
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    assert len(far.heard(SourceDown)) == 2
    far.assert_done_once(6)


def test_sshd_is_gone_while_tasks_end(far: FarSweep) -> None:
    launcher = far.launch(POINTS, "+gated=2")
    for index in (2, 3):
        far.wait_there(index)
    far.host.stop()
    far.wait_heard(SourceDown)
    far.open_gate()
    for index in (2, 3):
        far.wait_there(index, "result.txt")
    far.host.start()
    assert launcher.wait(60) == 0, far.said()
    assert len(far.heard(SourceUp)) == 1
    far.assert_done_once(6)


CUTS: dict[str, Callable[[NetnsHost], None]] = {"cut": NetnsHost.partition, "black hole": NetnsHost.blackhole}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_the_line_is_lost(
    cut: Callable[[NetnsHost], None], make_far: MakeFar, netns_host: NetnsHost, impatient: None
) -> None:
    far = make_far(netns_host)
    launcher = far.launch(POINTS, "+gated=2")
    for index in (2, 3):
        far.wait_there(index)
    cut(netns_host)
    far.wait_heard(SourceDown)
    far.open_gate()
    for index in (2, 3):
        far.wait_there(index, "result.txt")
    netns_host.heal()
    assert launcher.wait(90) == 0, far.said()
    assert len(far.heard(SourceUp)) == 1
    far.assert_done_once(6)


def test_the_line_is_slow(make_far: MakeFar, netns_host: NetnsHost) -> None:
    """Slow is not lost."""
    far = make_far(netns_host)
    launcher = far.launch(POINTS, "+gated=2")
    for index in (2, 3):
        far.wait_there(index)
    netns_host.slow(64)
    far.open_gate()
    assert launcher.wait(90) == 0, far.said()
    assert far.heard(SourceDown) == []
    far.assert_done_once(6)
