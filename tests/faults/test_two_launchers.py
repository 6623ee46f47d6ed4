"""Two launchers on one sweep: the newest alone writes it, and the other finds out before it does harm."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

POINTS = "+x=range(6)"

HOLD = """
import time
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


class HoldSweeper(BasicSweeper):
    def sweep(self, arguments):
        returns = super().sweep(arguments)
        Path("ended").touch()
        while not Path("go").exists():
            time.sleep(0.02)
        return returns


node = {"_target_": "hydra_plugins.hold.HoldSweeper", "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="hold", node=node)
"""


def kept(sweep: Sweep, *parts: str) -> dict[str, bytes]:
    """What a launcher writes of a sweep, or in these folders of it, but for the owners' own files."""
    found = {}
    for part in parts or (".hsm", "reports", "logs", "errors"):
        for path in (sweep.directory / part).rglob("*"):
            if path.is_file() and not path.name.startswith("owner_"):
                found[str(path.relative_to(sweep.directory))] = path.read_bytes()
    return found


def starts(sweep: Sweep, index: int) -> list[int]:
    """The pids of a task, one for every time it has begun."""
    path = sweep.output(index, "starts")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def begun(sweep: Sweep, *indices: int, times: int = 1) -> list[int]:
    """The pids of these tasks, once each has begun so many times."""
    what = f"start {times} of the tasks {indices}; the launcher said:\n{sweep.said()}"
    wait_until(lambda: all(len(starts(sweep, index)) == times for index in indices), what)
    return [starts(sweep, index)[-1] for index in indices]


def epochs(sweep: Sweep) -> list[str]:
    return sorted(path.name for path in (sweep.directory / ".hsm").glob("owner_*"))


@pytest.fixture
def elsewhere() -> list[str]:
    """In front of a command line: has it run on a host of another name."""
    command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root: another host name takes a UTS namespace of its own")
    return command


@pytest.mark.parametrize("door", ["complete", "launcher"])
def test_the_second_is_refused(sweep: Sweep, door: str) -> None:
    first = sweep.launch(POINTS, "+gated=0")
    begun(sweep, 0, 1)
    wait_until(lambda: sweep.state().counts[TaskState.RUNNING] == 2, "both starts in the journal")
    before = kept(sweep, ".hsm")
    second = sweep.complete() if door == "complete" else sweep.launch(POINTS, "hydra.launcher.resume=true")
    assert second.wait(60) == 1
    assert f"pid {first.pid} on {socket.gethostname()}" in sweep.said()
    assert re.search(r"since 20\d\d-.*\d\.\ds( ago)?\)", sweep.said())
    assert kept(sweep, ".hsm") == before
    assert epochs(sweep) == ["owner_0001.json"]
    sweep.open_gate()
    assert first.wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == set(range(6))
    sweep.audit()


def test_one_on_another_host_is_refused_until_it_takes_over(sweep: Sweep, elsewhere: list[str]) -> None:
    first = sweep.launch(POINTS, "+gated=0", before=elsewhere)
    running = begun(sweep, 0, 1)
    sweep.kill()
    wait_until(lambda: not any(alive(pid) for pid in running), "the tasks to end with their launcher")
    assert sweep.complete().wait(60) == 1
    assert f"pid {first.pid} on elsewhere" in sweep.said()
    assert "--takeover" in sweep.said()
    sweep.open_gate()
    assert sweep.complete("--takeover").wait(60) == 0, sweep.said()
    assert epochs(sweep) == ["owner_0001.json", "owner_0002.json"]
    assert set(sweep.finished()) == set(range(6))
    sweep.audit()


def test_a_stopped_owner_wakes_up_after_all_is_done(sweep: Sweep) -> None:
    first = sweep.launch(POINTS, "+gated=0")
    running = begun(sweep, 0, 1)
    first.send_signal(signal.SIGSTOP)
    sweep.open_gate()
    assert sweep.complete().wait(60) == 1, "a stopped launcher may wake up"
    assert sweep.complete("--takeover").wait(60) == 0, sweep.said()
    assert not any(alive(pid) for pid in running)
    before, finished = kept(sweep), sweep.finished()
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 1
    assert "Another launcher took over the sweep" in sweep.said()
    assert kept(sweep) == before
    assert sweep.finished() == finished
    assert set(finished) == set(range(6))
    sweep.audit()


def test_a_stopped_owner_wakes_up_while_its_successor_works(sweep: Sweep) -> None:
    first = sweep.launch(POINTS, "+gated=2")
    left = begun(sweep, 2, 3)
    first.send_signal(signal.SIGSTOP)
    second = sweep.complete("--takeover")
    wait_until(lambda: not any(alive(pid) for pid in left), "the tasks of the first launcher to be ended")
    now = begun(sweep, 2, 3, times=2)
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 1
    assert all(alive(pid) for pid in now)
    sweep.open_gate()
    assert second.wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == set(range(6))
    sweep.audit()


def test_an_owner_that_was_succeeded_before_its_end_leaves_the_sweep_alone(sweep: Sweep) -> None:
    """All its tasks have ended, one of them failed; another launcher runs that one again before the first closes."""
    (sweep.folder / "hydra_plugins").mkdir()
    (sweep.folder / "hydra_plugins" / "hold.py").write_text(HOLD)
    sweep.open_gate()
    options = ["+gated=5", "+bad=5", "hydra.launcher.raise_on_failure=false"]
    first = sweep.launch(POINTS, *options, "hydra/sweeper=hold")
    wait_until((sweep.folder / "ended").exists, "the tasks of the first launcher to end")
    (sweep.folder / "gate").unlink()
    second = sweep.complete("--takeover", "--retry-failed")
    begun(sweep, 5, times=2)
    (sweep.directory / ".hsm" / "results" / "of_the_second.json.tmp").touch()
    wait_until(lambda: sweep.state().counts[TaskState.RUNNING] == 1, "its start in the journal")
    before = kept(sweep, ".hsm", "reports")
    (sweep.folder / "go").touch()
    first.wait(60)
    assert "Another launcher took over the sweep" in sweep.said()
    assert kept(sweep, ".hsm", "reports") == before
    sweep.open_gate()
    assert second.wait(60) == 0, sweep.said()
    assert sweep.state().status == "finished"
    sweep.audit()
