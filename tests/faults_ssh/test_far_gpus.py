"""Two sweeps share the GPUs of a host that both reach by SSH: never two tasks on one, and who dies gives it back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hsm_core.testing import wait_until
from tests.conftest import FakeGpus
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.sshd import SshHost

WRITE = "(out / 'gpus').write_text(f\\\"{os.environ['CUDA_VISIBLE_DEVICES']} {began} {time.monotonic()}\\\")"
DO = f'+do="began = time.monotonic(); time.sleep(0.1); {WRITE}"'
"""write which GPUs this is on, from when to when"""
WAITING = "tasks wait for GPUs"


@pytest.fixture
def make_pair(make_far: MakeFar, ssh_host: SshHost) -> Iterator[Callable[..., list[FarSweep]]]:
    """Makes two sweeps on the host, which has four GPUs; `gpus` are those that each may use."""
    folder = ssh_host.folder / "gpus"
    folder.mkdir()
    fake = FakeGpus(folder)

    def make(gpus: object, **more: object) -> list[FarSweep]:
        fields = {"gpus": gpus, "max_parallel_tasks": 4, "setup": [f"export PATH={folder}:$PATH"], **more}
        return [make_far(ssh_host, fields) for _ in range(2)]

    yield make
    for index in range(4):
        fake.lock_file(index).unlink(missing_ok=True)


def waits(sweep: FarSweep) -> bool:
    """Whether the sweep has said that it waits for GPUs."""
    return WAITING in sweep.said()


def uses(*sweeps: FarSweep) -> list[tuple[str, float, float]]:
    """Which GPU each task had, from when to when."""
    told = [path.read_text().split() for sweep in sweeps for path in sweep.directory.glob("*/gpus")]
    return sorted((name, float(began), float(ended)) for name, began, ended in told)


def finish(*sweeps: FarSweep) -> None:
    sweeps[0].open_gate()
    for sweep in sweeps:
        assert sweep.launcher is not None
        assert sweep.launcher.wait(60) == 0, sweep.said()
    for sweep in sweeps:
        sweep.audit()


def running(host: SshHost, sweep: FarSweep) -> list[Path]:
    """What tasks of a sweep wrote when they started, on the host."""
    if not sweep.has_begun():
        return []
    return [*(host.home / ".hsm" / "sweeps").glob(f"{sweep.state().id}-*/far/*/starts")]


def test_two_sweeps_at_once(make_pair: Callable[..., list[FarSweep]], ssh_host: SshHost) -> None:
    one, two = make_pair("auto")
    for sweep in (one, two):
        sweep.launch("+x=range(6)", "+gated=0", DO)
    wait_until(lambda: waits(one) or waits(two), f"one to wait; they said:\n{one.said()}{two.said()}")
    finish(one, two)
    used = uses(one, two)
    assert len(used) == 12
    assert len({name for name, _, _ in used}) == 4
    for (name, _, ended), (other, began, _) in itertools.pairwise(used):
        assert name != other or ended <= began


def test_as_many_slots_as_gpus_have_room_for(make_pair: Callable[..., list[FarSweep]], ssh_host: SshHost) -> None:
    sweep, _ = make_pair("auto", max_parallel_tasks=None)
    sweep.launch("+x=range(5)", "+gated=0", DO)
    wait_until(lambda: len(running(ssh_host, sweep)) == 4, f"four to start\n{sweep.said()}")
    assert sweep.state().sources["far"].slots == 4
    finish(sweep)


def test_a_task_that_is_killed_gives_its_gpu_back(make_pair: Callable[..., list[FarSweep]], ssh_host: SshHost) -> None:
    """The other sweep's task gets the only GPU, before the one that was killed gets it again."""
    killed, other = make_pair([2])
    killed.launch("+x=0", "+gated=0", DO)
    wait_until(lambda: bool(running(ssh_host, killed)), f"the first to start\n{killed.said()}")
    (starts,) = running(ssh_host, killed)
    other.launch("+x=0", "+gated=0", DO)
    wait_until(lambda: waits(other), f"the other one to wait\n{other.said()}")
    psutil.Process(int(starts.read_text())).kill()
    wait_until(lambda: bool(running(ssh_host, other)), "the other one to start")
    finish(other, killed)
    assert [name for name, _, _ in uses(other, killed)] == ["2", "2"]
    assert uses(other)[0][2] <= uses(killed)[0][1]
    assert killed.submissions() == {0: 2}
