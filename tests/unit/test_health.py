"""What an agent finds out about its host."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from hsm_core.config import SourceConfig
from hsm_core.exceptions import Unavailable
from hsm_core.remote import health
from hsm_core.remote.commands import Commands
from hsm_core.sources.base import GpuHealth
from hsm_core.sources.local import LocalSource
from hsm_core.testing import Bench, wait_until

if TYPE_CHECKING:
    from tests.conftest import FakeGpus


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Of a local source that is not started yet."""
    made = Bench(LocalSource("here", SourceConfig(type="local"), 2), tmp_path)
    yield made
    made.source.stop(5.0)


def slow_nvidia_smi(gpus: FakeGpus) -> Path:
    """From now on nvidia-smi takes for ever; returns where it notes that it runs."""
    noted = gpus.folder / "running"
    (gpus.folder / "nvidia-smi").write_text(f"#!/bin/sh\necho $$ > {noted}\nexec sleep 600\n")
    return noted


def test_facts_of_this_host(tmp_path: Path) -> None:
    facts = health.facts(str(tmp_path))
    memory = psutil.virtual_memory()
    assert facts["memory_total"] == pytest.approx(memory.total / (1 << 20), rel=0.01)
    assert 0 < facts["memory_available"] <= facts["memory_total"]
    disk = os.statvfs(tmp_path)
    assert 0 < facts["disk_free"] <= disk.f_blocks * disk.f_frsize / (1 << 20)
    assert 0 < facts["disk_free_percent"] <= 100
    assert facts["uptime"] == pytest.approx(time.time() - psutil.boot_time(), abs=60)
    assert facts["load"] >= 0


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    facts = health.facts(str(tmp_path / "gone"))
    assert (facts["disk_free"], facts["disk_free_percent"]) == (None, None)


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        ({"error": "it took longer than its time limit"}, "nvidia-smi: it took longer than its time limit"),
        ({"exit_code": 9, "stdout": "NVIDIA-SMI has failed\n", "stderr": ""}, "failed with 9: NVIDIA-SMI has failed"),
    ],
)
def test_nvidia_smi_that_fails(ended: dict[str, Any], problem: str) -> None:
    facts = health.gpu_facts(ended)
    assert facts["gpus"] == []
    assert facts["gpu_problem"].endswith(problem)


def test_what_nvidia_smi_prints() -> None:
    out = "GPU-1, 81920, 80000, 37, NVIDIA H100, 80GB\nGPU-2, [N/A], [Not Supported], [N/A], A30\nUnable to determine\n"
    first, second = health.gpu_facts({"exit_code": 0, "stdout": out, "stderr": ""})["gpus"]
    assert first["model"] == "NVIDIA H100, 80GB"
    assert (first["memory_total"], first["memory_free"], first["utilisation"]) == (81920.0, 80000.0, 37.0)
    assert (second["memory_total"], second["memory_free"], second["utilisation"]) == (None, None, None)


def test_health_of_a_local_source(bench: Bench, fake_gpus: FakeGpus) -> None:
    bench.start()
    told = bench.source.health()
    assert told is not None
    assert [gpu.id for gpu in told.gpus] == fake_gpus.uuids
    assert told.gpus[2] == GpuHealth(fake_gpus.uuids[2], "NVIDIA A100-SXM4-40GB", 40960.0, 20000.0, None)
    assert told.gpu_problem is None
    assert told.disk_free == pytest.approx(health.facts(str(bench.directory))["disk_free"], rel=0.2)


def test_tasks_go_on_while_nvidia_smi_takes_long(
    bench: Bench, fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = slow_nvidia_smi(fake_gpus)
    monkeypatch.setattr("hsm_core.sources.agent.HEALTH_PATIENCE", 0.1)
    bench.start()
    with pytest.raises(Unavailable, match="did not answer"):
        bench.source.health()
    wait_until(running.exists, "nvidia-smi to run")
    assert bench.run(0, "do=return").outcome.completed


@contextlib.contextmanager
def started() -> Iterator[list[psutil.Process]]:
    """The children that we get inside this; other tests may have left us others."""
    found: list[psutil.Process] = []
    before = set(psutil.Process().children())
    yield found
    found += set(psutil.Process().children()) - before


def test_a_program_that_has_had_its_time_is_told_at_once_and_reaped_later() -> None:
    told: list[dict[str, Any]] = []
    commands = Commands()
    with started() as found:
        commands.start(["sleep", "600"], 0.0, lambda **how: told.append(how))
    (child,) = found
    commands.expire()
    assert told == [{"error": "it took longer than its time limit"}]
    assert list(commands.deadlines()) == [], "who waits for deadlines would turn round and round"
    assert commands.stuck("sleep")
    assert not commands.stuck("nvidia-smi")
    assert child.wait(30) in (-signal.SIGKILL, None)
    commands.reap()
    assert not commands.stuck("sleep")
    assert len(told) == 1


def test_nvidia_smi_that_hangs_is_not_started_again(fake_gpus: FakeGpus) -> None:
    slow_nvidia_smi(fake_gpus)
    told: list[dict[str, Any]] = []
    commands = Commands()
    with started() as found:
        health.tell("/", commands, lambda **how: told.append(how), gpus=True)
    (child,) = found
    child.suspend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: float("inf"))
        commands.expire()
    health.tell("/", commands, lambda **how: told.append(how), gpus=True)
    assert [one["gpu_problem"] for one in told] == [
        "nvidia-smi: it took longer than its time limit",
        "nvidia-smi hangs since it was last asked, and can't be killed",
    ]
    child.wait(30)
    commands.reap()
