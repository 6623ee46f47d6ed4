"""The disk of the sweep is full: nothing more is handed out, nothing that ended is lost, and with room it goes on."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core.registry import entries
from hsm_core.task import TaskState
from hsm_core.testing import wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

APP = """
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    config = HydraConfig.get()
    out = Path(config.runtime.output_dir)
    (out / "result.txt").write_text("done")
    with open(Path(config.runtime.cwd) / "starts", "a") as f:
        f.write(f"{cfg.x}\\n")
    while cfg.x >= cfg.get("gated", 10**9) and not (Path(config.runtime.cwd) / "gate").exists():
        time.sleep(0.02)
    return complex(cfg.x) if cfg.get("complex") else cfg.x * 10


if __name__ == "__main__":
    main()
"""
POINTS = "+x=range(8)"


class Disk:
    """A small disk, to be filled and emptied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, room: int = 0) -> None:
        """Leave so many bytes of room."""
        with open(self._ballast, "ab", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            ballast.truncate(max(0, ballast.seek(0, 2) - room))

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root: a small disk is a tmpfs to be mounted")
    yield Disk(folder)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small(disk: Disk, sweep: Sweep) -> Iterator[Sweep]:
    """A sweep on the small disk; its app and what its launcher says are elsewhere."""
    sweep.directory = disk.folder / "sweep"
    (sweep.folder / "app.py").write_text(APP)
    yield sweep
    disk.empty()


def starts(sweep: Sweep) -> list[int]:
    """The points in the order they were started, each as often as it was."""
    path = sweep.folder / "starts"
    return [int(point) for point in path.read_text().split()] if path.exists() else []


HELD_UP, LOW, ROOM = "The sweep waits for room", "The disk is full", "There is room again"


def fill(sweep: Sweep, disk: Disk) -> None:
    """Fill the disk while two tasks run, and wait until the launcher took note."""
    wait_until(lambda: sorted(starts(sweep)) == [0, 1, 2, 3], "four tasks to start")
    told = sweep.said().count(LOW)
    disk.fill()
    wait_until(lambda: sweep.said().count(LOW) > told or HELD_UP in sweep.said(), "word of the full disk")


def empty(sweep: Sweep, disk: Disk) -> None:
    """Make room, and wait until the launcher took note."""
    told = sweep.said().count(ROOM)
    disk.empty()
    wait_until(lambda: sweep.said().count(ROOM) > told, "word of the room")


def fill_to_the_brim(sweep: Sweep, disk: Disk) -> None:
    """Not even a line of the journal has room left in the block that the journal has."""
    fill(sweep, disk)
    while HELD_UP not in sweep.said():
        empty(sweep, disk)
        fill(sweep, disk)


def wait_until_changed(folder: Path) -> None:
    before = folder.stat().st_mtime_ns
    wait_until(lambda: folder.stat().st_mtime_ns != before, f"a change in {folder}")


def test_a_sweep_waits_for_room_and_goes_on_by_itself(small: Sweep, disk: Disk) -> None:
    launcher = small.launch(POINTS, "+gated=2")
    fill_to_the_brim(small, disk)
    small.open_gate()
    said = small.said()
    assert f"No space left on device: {small.directory}/.hsm/journal.jsonl" in said
    assert f"0 B of 4.0 MiB are free on {disk.folder}" in said
    assert sorted(starts(small)) == [0, 1, 2, 3]
    assert launcher.poll() is None
    disk.empty()
    assert launcher.wait(60) == 0, small.said()
    assert sorted(starts(small)) == list(range(8)), "what had ended when there was no room is not run again"
    assert small.state().counts[TaskState.COMPLETED] == 8
    assert "The disk was full for" in (small.directory / "logs" / "sweep_aggregated.log").read_text()
    small.audit()


def test_results_wait_for_room_too(small: Sweep, disk: Disk) -> None:
    """The launcher sleeps, so that only the tasks' side finds out."""
    launcher = small.launch(POINTS, "+gated=2")
    wait_until(lambda: sorted(starts(small)) == [0, 1, 2, 3], "four tasks to start")
    launcher.send_signal(signal.SIGSTOP)
    disk.fill()
    small.open_gate()
    results = small.directory / ".hsm" / "results"
    for _ in range(4):  # each try makes a file there and removes it
        wait_until_changed(results)
    disk.empty()
    launcher.send_signal(signal.SIGCONT)
    assert launcher.wait(60) == 0, small.said()
    assert "there is no room for its result: No space left on device" in small.said()
    assert sorted(starts(small)) == list(range(8))
    small.audit()


def test_return_values_that_are_no_json_wait_for_room(small: Sweep, disk: Disk) -> None:
    launcher = small.launch(POINTS, "+gated=2", "+complex=true")
    fill(small, disk)
    small.open_gate()
    for _ in range(4):
        wait_until_changed(small.directory / ".hsm" / "results")
    disk.empty()
    assert launcher.wait(60) == 0, small.said()
    assert sorted(starts(small)) == list(range(8))
    for task in small.state().tasks.values():
        assert task.outcome is not None
        assert task.outcome.warning is None
    assert len(list((small.directory / ".hsm" / "results").glob("*.pkl"))) == 8
    small.audit()


def test_a_sweep_that_waits_for_room_can_be_ended_and_completed(small: Sweep, disk: Disk) -> None:
    small.launch(POINTS, "+gated=2")
    fill(small, disk)
    assert small.kill(signal.SIGINT) == 130, small.said()
    assert "To go on: hsm complete sweep_" in small.said()
    small.wait_for_peace()
    disk.empty()
    small.open_gate()
    assert small.complete().wait(60) == 0, small.said()
    assert set(small.state().tasks) == set(range(8))
    assert small.state().counts[TaskState.COMPLETED] == 8
    small.audit()


def test_a_sweep_that_was_killed_while_the_disk_was_full_is_completed(small: Sweep, disk: Disk) -> None:
    small.launch(POINTS, "+gated=2")
    fill(small, disk)
    small.kill()
    small.wait_for_peace()
    assert small.complete().wait(60) == 1
    assert f"can't be made or written: No space left on device: {small.directory}; " in small.said()
    disk.empty()
    small.open_gate()
    assert small.complete().wait(60) == 0, small.said()
    assert small.state().counts[TaskState.COMPLETED] == 8
    small.audit()


def test_a_disk_that_is_full_at_the_start(small: Sweep, disk: Disk) -> None:
    disk.fill(32 << 10)
    assert small.launch(POINTS).wait(60) == 1
    assert f"can't be made or written: No space left on device: {small.directory}; " in small.said()
    assert f"KiB of 4.0 MiB are free on {disk.folder}" in small.said()
    assert "Traceback" not in small.said()
    nothing_was_begun(small)


def test_a_sweep_for_which_its_first_files_are_too_large(sweep: Sweep) -> None:
    assert sweep.launch(POINTS, before=largest_file(6000)).wait(60) == 1
    assert "can't be opened, and nothing was run: File too large" in sweep.said()
    assert "Traceback" not in sweep.said()
    nothing_was_begun(sweep)


def nothing_was_begun(sweep: Sweep) -> None:
    assert {path.name for path in sweep.directory.iterdir()} == {"multirun.yaml"}, "which Hydra writes before"
    assert not [entry for entry in entries() if entry.directory == sweep.directory]
    assert starts(sweep) == []


def largest_file(size: int) -> list[str]:
    """In front of a command line: no file may grow larger (RLIMIT_FSIZE), for which no room will ever come."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))"
    return [sys.executable, "-c", f"import os, resource, sys; {limit}; os.execvp(sys.argv[1], sys.argv[1:])"]


def test_a_journal_that_can_not_grow_ends_the_sweep(sweep: Sweep) -> None:
    (sweep.folder / "app.py").write_text(APP)
    assert sweep.launch("+x=range(60)", f"+long={'x' * 500}", before=largest_file(50_000)).wait(60) == 1
    assert f"The journal can't be written: File too large: {sweep.directory}/.hsm/journal.jsonl" in sweep.said()
    assert "To go on: hsm complete sweep_" in sweep.said()
    done = [task.index for task in sweep.state().tasks.values() if task.state is TaskState.COMPLETED]
    assert done
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert sweep.state().counts[TaskState.COMPLETED] == 60
    assert all(starts(sweep).count(point) == 1 for point in done)
    sweep.audit()
