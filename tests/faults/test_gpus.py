"""Two sweeps share the GPUs of a host: never two tasks on one, and whatever dies gives back what it held."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_core.remote import marks, process
from hsm_core.task import TaskState
from hsm_core.testing import wait_until
from tests.faults.conftest import Sweep

if TYPE_CHECKING:
    from tests.conftest import FakeGpus

APP = """
import os, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    began = time.monotonic()
    out = Path(HydraConfig.get().runtime.output_dir)
    with open(out / "starts", "a") as f:
        f.write(f"{os.getpid()}\\n")
    gate = Path(HydraConfig.get().runtime.cwd) / "gate"
    while not gate.exists():
        time.sleep(0.02)
    time.sleep(0.1)
    (out / "result.txt").write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']} {began} {time.monotonic()}")


if __name__ == "__main__":
    main()
"""
WAITING = "tasks wait for GPUs"


@pytest.fixture
def make(tmp_path: Path, fake_gpus: FakeGpus) -> Iterator[Callable[..., Sweep]]:
    """Makes sweeps on sources with these settings, all on the same four GPUs; ends what is left of them."""
    made: list[Sweep] = []

    def make(**settings: str) -> Sweep:
        folder = tmp_path / f"sweep_{len(made)}"
        folder.mkdir()
        sweep = Sweep(folder)
        lines = [f"  {name}: {{type: local, {text}}}\n" for name, text in settings.items()]
        (folder / "hsm_config.yaml").write_text("compute_sources:\n" + "".join(lines))
        (folder / "app.py").write_text(APP)
        made.append(sweep)
        return sweep

    yield make
    for sweep in made:
        if sweep.launcher is not None and sweep.launcher.poll() is None:
            os.killpg(sweep.launcher.pid, signal.SIGKILL)
            sweep.launcher.wait()
        sweep.wait_for_peace()


def waits(sweep: Sweep) -> bool:
    """Whether the sweep has said that it waits for GPUs."""
    log = sweep.directory / "logs" / "sweep_aggregated.log"
    return log.exists() and WAITING in log.read_text()


def started(*sweeps: Sweep) -> int:
    """How many tasks have started."""
    return sum(len(list(sweep.directory.glob("*/starts"))) for sweep in sweeps)


def uses(*sweeps: Sweep) -> list[tuple[str, float, float]]:
    """Which GPUs each task had, from when to when."""
    told = [path.read_text().split() for sweep in sweeps for path in sweep.directory.glob("*/result.txt")]
    return sorted((names, float(began), float(ended)) for names, began, ended in told)


def most_at_once(used: list[tuple[str, float, float]]) -> int:
    """The largest number of these tasks that ran at one moment."""
    return max(sum(began <= moment < ended for _, began, ended in used) for _, moment, _ in used)


def finish(*sweeps: Sweep) -> None:
    for sweep in sweeps:
        sweep.open_gate()
    for sweep in sweeps:
        assert sweep.launcher is not None
        assert sweep.launcher.wait(60) == 0, sweep.said()
        sweep.audit()


@pytest.mark.parametrize(
    ("settings", "per_task", "devices", "share"),
    [("gpus: auto", "null", 4, 1), ("gpus: [1, 3]", "0.5", 2, 2)],
    ids=["whole", "halves"],
)
def test_two_sweeps_at_once(make: Callable[..., Sweep], settings: str, per_task: str, devices: int, share: int) -> None:
    one, two = make(local=settings), make(local=settings)
    for sweep in (one, two):
        sweep.launch("+x=range(6)", f"hydra.launcher.gpus_per_task={per_task}")
    wait_until(lambda: started(one, two) == 4 and (waits(one) or waits(two)), "four tasks, and others that wait")
    finish(one, two)
    used = uses(one, two)
    assert len(used) == 12
    by_device = {name: [use for use in used if use[0] == name] for name, _, _ in used}
    assert len(by_device) == devices
    assert all(most_at_once(on_it) <= share for on_it in by_device.values())
    assert most_at_once(used) == 4


def test_several_gpus_for_a_task(make: Callable[..., Sweep]) -> None:
    """Who needs two waits for two, although one is free, and comes before who came later."""
    one, two = make(local="gpus: [0, 1, 2]"), make(local="gpus: auto")
    one.launch("+x=range(5)")
    wait_until(lambda: started(one) == 3, "three tasks")
    two.launch("+x=range(2)", "hydra.launcher.gpus_per_task=2")
    wait_until(lambda: waits(two), "the other sweep to wait")
    finish(one, two)
    pairs = uses(two)
    assert [len(names.split(",")) for names, _, _ in pairs] == [2, 2]
    for names, began, ended in pairs:
        for name, other_began, other_ended in uses(one):
            assert name not in names.split(",") or ended <= other_began or other_ended <= began


def victim(sweep: Sweep, who: str) -> int:
    """The process of a sweep with a running task that is to be killed."""
    assert sweep.launcher is not None
    worker = int(sweep.output(0, "starts").read_text().split()[0])
    (agent,) = (pid for pid in marks.marked(f"{sweep.directory}:") if "agent" in marks.command(pid))
    (supervisor,) = (pid for pid in process.descendants(agent) if worker in process.children(pid))
    return {"worker": worker, "supervisor": supervisor, "agent": agent, "launcher": sweep.launcher.pid}[who]


@pytest.mark.parametrize(
    ("who", "worker"),
    [("worker", "fork"), ("supervisor", "fork"), ("supervisor", "spawn"), ("agent", "fork"), ("launcher", "fork")],
)
def test_who_is_killed_gives_back(make: Callable[..., Sweep], who: str, worker: str) -> None:
    """The other sweep's task gets the only GPU, before the one that was killed gets it again."""
    killed, other = make(local="gpus: [2]"), make(local="gpus: [2]")
    killed.launch("+x=0", f"hydra.launcher.worker={worker}")
    killed.wait_for(0, "starts")
    other.launch("+x=0")
    wait_until(lambda: waits(other), "the other sweep to wait")
    assert started(other) == 0
    os.kill(victim(killed, who), signal.SIGKILL)
    other.wait_for(0, "starts")
    if who == "launcher":
        assert killed.launcher is not None
        killed.launcher.wait(60)
        finish(other)
    else:
        finish(other, killed)
        assert [names for names, _, _ in uses(other, killed)] == ["2", "2"]
        (task,) = killed.state().tasks.values()
        assert (task.state, dict(task.failures)) == (TaskState.COMPLETED, {"lost": 1})
        assert uses(other)[0][2] <= uses(killed)[0][1]


def test_tasks_that_wait_can_be_cancelled(make: Callable[..., Sweep]) -> None:
    holder, waiting = make(local="gpus: [0]"), make(local="gpus: [0]")
    holder.launch("+x=0")
    holder.wait_for(0, "starts")
    waiting.launch("+x=range(3)", "hydra.launcher.grace=600")
    wait_until(lambda: waits(waiting), "the sweep to wait")
    assert waiting.kill(signal.SIGINT) == 130
    waiting.audit()
    assert started(waiting) == 0
    assert waiting.state().counts[TaskState.FAILED] == 0
    finish(holder)


def test_waiting_is_no_run_time(make: Callable[..., Sweep]) -> None:
    """The time limit begins with the lease; what is waited for here is the clock itself."""
    holder, waiting = make(local="gpus: [0]"), make(local="gpus: [0]")
    holder.launch("+x=0")
    holder.wait_for(0, "starts")
    waiting.open_gate()
    waiting.launch("+x=0", "hydra.launcher.timeout=4")
    wait_until(lambda: waits(waiting), "the sweep to wait")
    since = time.monotonic()
    wait_until(lambda: time.monotonic() > since + 4.0, "the time limit to pass")
    finish(holder, waiting)
    (task,) = waiting.state().tasks.values()
    assert (task.state, dict(task.failures)) == (TaskState.COMPLETED, {})
