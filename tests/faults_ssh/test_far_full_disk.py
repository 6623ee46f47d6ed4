"""The disk of a host is full: a task that fails by that says so, one that has ended waits, and loses nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from hsm_core.events import AttemptFinished, Note, SourceDisabled
from hsm_core.remote.names import task_name
from hsm_core.task import Cause
from hsm_core.testing import wait_until
from tests.faults.test_full_disk import Disk
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.sshd import SshHost

GREEDY = """
import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "starts").write_text(str(os.getpid()))
    if cfg.x == 1:
        try:
            (out / "large").write_bytes(bytes(64 << 20))
        finally:
            (out / "large").unlink()
    (out / "result.txt").write_text(f"{cfg.x}\\n")


if __name__ == "__main__":
    main()
"""
ENDING = """
import os, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "starts").write_text(str(os.getpid()))
    (out / "result.txt").write_text(f"{cfg.x}\\n")
    (out / "all").touch()
    while not (Path.home() / "gate").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def far_disk(ssh_host: SshHost) -> Iterator[Disk]:
    """Where the host's user has its sweeps."""
    folder = ssh_host.home / ".hsm" / "sweeps"
    folder.mkdir(parents=True)
    owner = os.stat(ssh_host.home)
    os.chown(folder.parent, owner.st_uid, owner.st_gid)
    options = f"size=8m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_task_that_finds_no_room(make_far: MakeFar, ssh_host: SshHost, far_disk: Disk) -> None:
    far = make_far(ssh_host, {"max_parallel_tasks": 1})
    (far.folder / "app.py").write_text(GREEDY)
    assert far.launch("+x=range(3)").wait(60) == 1, far.said()
    ends = {event.task: event.outcome for event in far.heard(AttemptFinished)}
    assert {index for index, outcome in ends.items() if outcome.completed} == {0, 2}
    assert ends[1].cause is Cause.ERROR
    assert "No space left on device" in ends[1].message
    assert far.state().sources["far"].disabled is None
    far.audit()


def test_results_wait_for_room(make_far: MakeFar, ssh_host: SshHost, far_disk: Disk) -> None:
    """Meanwhile the launcher and other sources go on."""
    far: FarSweep = make_far(ssh_host, local=1)
    (far.folder / "app.py").write_text(ENDING)
    launcher = far.launch("+x=range(8)", "hydra.launcher.strategy=round_robin")
    wait_until(lambda: len(list(far_disk.folder.glob("*/far/*/all"))) == 2, f"two tasks\n{far.said()}")
    far_disk.fill()
    far.open_gate()

    def waiting() -> set[str]:
        notes = (event.message for event in far.heard(Note))
        return {words.split()[0] for words in notes if "there is no room for its result" in words}

    wait_until(lambda: len(waiting()) == 2, f"word of both\n{far.said()}")
    wait_until(lambda: len(far.heard(AttemptFinished)) == 6, f"the other source to run what it can\n{far.said()}")
    assert not waiting() & {task_name(event.task) for event in far.heard(AttemptFinished)}
    assert launcher.poll() is None
    far_disk.empty()
    assert launcher.wait(60) == 0, far.said()
    far.assert_done_once(8)


def test_a_host_that_has_no_room_to_begin_with(make_far: MakeFar, ssh_host: SshHost, far_disk: Disk) -> None:
    far = make_far(ssh_host, local=1)
    far_disk.fill()
    launcher = far.launch("+x=range(4)", "+gated=0")
    far.wait_heard(SourceDisabled)
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    (event,) = far.heard(SourceDisabled)
    assert "No space left on device" in event.reason
    assert "Traceback" not in far.said()
    far_disk.empty()
    far.assert_done_once(4)
