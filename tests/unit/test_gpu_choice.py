"""Which GPUs tasks may get, from what nvidia-smi, the environment and the configuration say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsm_core.config import SourceConfig
from hsm_core.remote import gpus
from hsm_core.remote.gpus import GpuError, environment, leasable, opened, parse, request
from hsm_core.sources.local import LocalSource, cores

FOUR = "".join(f"GPU {i}: NVIDIA A100-SXM4-40GB (UUID: GPU-{i}a5b-44{i}4)\n" for i in range(4))
# As the MIG User Guide shows it, and drivers before R470 wrote it.
SPLIT = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0a5b-4404)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-cba6)
GPU 1: NVIDIA GeForce RTX 3090 (UUID: GPU-1a5b-4414)
GPU 2: A100-PCIE-40GB (UUID: GPU-2a5b-4424)
  MIG 1c.3g.20gb Device 0: (UUID: MIG-GPU-2a5b-4424/1/0)
"""

Host = Callable[[str], dict[str, str]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Makes a host whose nvidia-smi is the given shell script; gives the environment of its processes."""

    def make(script: str) -> dict[str, str]:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    return make


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment on a host without nvidia-smi."""
    return {"PATH": str(tmp_path)}


def says(text: str) -> str:
    return f"test \"$1\" = -L && cat <<'END'\n{text}END"


def names(devices: list[gpus.Device]) -> str:
    return " ".join(device.name for device in devices)


def test_devices_of_a_listing() -> None:
    assert [(d.id, d.name, d.model, d.index) for d in parse(FOUR)][::3] == [
        ("GPU-0a5b-4404", "0", "NVIDIA A100-SXM4-40GB", "0"),
        ("GPU-3a5b-4434", "3", "NVIDIA A100-SXM4-40GB", "3"),
    ]


def test_mig_devices_stand_in_the_place_of_their_gpu() -> None:
    assert [(d.id, d.name, d.model, d.gpu) for d in parse(SPLIT)] == [
        ("MIG-c6d4", "MIG-c6d4", "NVIDIA A100-SXM4-40GB 3g.20gb", "GPU-0a5b-4404"),
        ("MIG-cba6", "MIG-cba6", "NVIDIA A100-SXM4-40GB 1g.5gb+me", "GPU-0a5b-4404"),
        ("GPU-1a5b-4414", "1", "NVIDIA GeForce RTX 3090", "GPU-1a5b-4414"),
        ("MIG-GPU-2a5b-4424/1/0", "MIG-GPU-2a5b-4424/1/0", "A100-PCIE-40GB 1c.3g.20gb", "GPU-2a5b-4424"),
    ]


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    lost = "Unable to determine the device handle for GPU0000:0A:00.0: Unknown Error\n  MIG 1g.5gb\n"
    assert len(parse(lost + FOUR)) == 4
    assert parse("  MIG 1g.5gb      Device  0: (UUID: MIG-cba6)\n") == []


@pytest.mark.parametrize(
    ("listing", "inherited", "wanted", "found"),
    [
        (FOUR, None, "auto", "0 1 2 3"),
        (FOUR, None, 2, "0 1"),
        (FOUR, None, [3, 0], "3 0"),
        (FOUR, None, ["GPU-2a5b-4424", 0, 0], "2 0"),
        (FOUR, "2,0", "auto", "2 0"),
        (FOUR, "2,0", 1, "2"),
        (FOUR, "2, 0", [0], "0"),
        (FOUR, "GPU-3a5b-4434,GPU-1", "auto", "GPU-3a5b-4434 GPU-1"),
        (FOUR, "GPU-3a5b-4434,GPU-1", [1], "GPU-1"),
        (FOUR, "GPU-3a5b-4434,0", ["GPU-3a5b-4434"], "GPU-3a5b-4434"),
        (FOUR, "0,2,-1,1", "auto", "0 2"),
        (FOUR, "0,2,9,1", "auto", "0 2"),
        (FOUR, "0,GPU-,1", "auto", "0"),
        (FOUR, "1,1", "auto", "1"),
        (SPLIT, None, "auto", "MIG-c6d4 MIG-cba6 1 MIG-GPU-2a5b-4424/1/0"),
        (SPLIT, None, ["MIG-cba6", 1], "MIG-cba6 1"),
        (SPLIT, "0", "auto", "MIG-c6d4 MIG-cba6"),
        (SPLIT, "GPU-0a5b-4404,1", "auto", "MIG-c6d4 MIG-cba6 1"),
        (SPLIT, "MIG-GPU-2a5b-4424/1/0,MIG-cba6", "auto", "MIG-GPU-2a5b-4424/1/0 MIG-cba6"),
    ],
)
def test_what_tasks_may_get(host: Host, listing: str, inherited: str | None, wanted: Any, found: str) -> None:
    environ = host(says(listing))
    if inherited is not None:
        environ["CUDA_VISIBLE_DEVICES"] = inherited
    assert names(leasable(wanted, 1, environ)) == found


@pytest.mark.parametrize(
    ("inherited", "wanted", "found"),
    [
        (None, 2, "0 1"),
        (None, [1, "GPU-77"], "1 GPU-77"),
        ("1,3", "auto", "1 3"),
        ("1,3", [3], "3"),
        ("MIG-a,MIG-b", 1, "MIG-a"),
        ("1,-1,2", "auto", "1"),
    ],
)
def test_without_nvidia_smi_words_are_believed(
    bare: dict[str, str], inherited: str | None, wanted: Any, found: str
) -> None:
    if inherited is not None:
        bare["CUDA_VISIBLE_DEVICES"] = inherited
    devices = leasable(wanted, 1, bare)
    assert names(devices) == found
    assert [device.id for device in devices] == found.split()


@pytest.mark.parametrize("inherited", ["", "-1", "NoDevFiles"])
def test_nothing_inherited_is_nothing_to_lease(host: Host, inherited: str) -> None:
    environ = host(says(FOUR)) | {"CUDA_VISIBLE_DEVICES": inherited}
    with pytest.raises(GpuError) as caught:
        leasable("auto", 0.5, environ)
    words = "gpus_per_task: each task is to get 0.5 GPU, but what it can get is none"
    assert str(caught.value) == f"{words} (CUDA_VISIBLE_DEVICES is {inherited!r})"


@pytest.mark.parametrize(
    ("script", "extra", "wanted", "per_task", "words"),
    [
        (says("No devices found.\n"), {}, "auto", 1,
         "gpus_per_task: each task is to get 1 GPU, but what it can get is none "
         "(nvidia-smi -L says: No devices found.)"),
        (says(FOUR), {"CUDA_VISIBLE_DEVICES": "3"}, [0], 1,
         "gpus: 0 is wanted, but there are 3 (NVIDIA A100-SXM4-40GB) (CUDA_VISIBLE_DEVICES is '3')"),
        (says(SPLIT), {"CUDA_VISIBLE_DEVICES": "1"}, 2, 1,
         "gpus: 2 are wanted, but there are 1 (NVIDIA GeForce RTX 3090) (CUDA_VISIBLE_DEVICES is '1')"),
        (says(FOUR), {}, 1, 2,
         "gpus_per_task: each task is to get 2 GPUs, but what it can get is 0 (NVIDIA A100-SXM4-40GB)"),
        (says(FOUR), {}, 0, 1, "gpus_per_task: each task is to get 1 GPU, but what it can get is none"),
        (says(FOUR), {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "auto", 1,
         "with CUDA_DEVICE_ORDER=FASTEST_FIRST nobody can tell which GPUs CUDA_VISIBLE_DEVICES=0 means; "
         "write UUIDs there (nvidia-smi -L shows them), or leave CUDA_DEVICE_ORDER out"),
    ],
)  # fmt: skip
def test_what_is_not_to_be_had(
    host: Host, script: str, extra: dict[str, str], wanted: Any, per_task: float, words: str
) -> None:
    with pytest.raises(GpuError) as caught:
        leasable(wanted, per_task, host(script) | extra)
    assert str(caught.value) == words


def test_auto_needs_somebody_who_tells(bare: dict[str, str]) -> None:
    with pytest.raises(GpuError, match=r"nvidia-smi is not installed here.*name them, as in `gpus: 4`"):
        leasable("auto", 1, bare)


def test_nvidia_smi_that_fails(host: Host) -> None:
    with pytest.raises(GpuError, match="nvidia-smi -L failed with 9: no driver"):
        leasable("auto", 1, host("echo no driver >&2; exit 9"))


def test_nvidia_smi_that_hangs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2)
    with pytest.raises(GpuError, match=r"nvidia-smi -L did not answer within 0.2 s"):
        leasable("auto", 1, host("exec sleep 600"))


def test_tasks_without_gpus_need_no_nvidia_smi(host: Host) -> None:
    assert leasable(0, 0, host("exit 9")) == []


@pytest.mark.parametrize(
    ("wanted", "per_task", "asked"),
    [
        (None, None, None),
        ("auto", None, {"wanted": "auto", "per_task": 1.0}),
        (None, 0.5, {"wanted": "auto", "per_task": 0.5}),
        (2, 2.0, {"wanted": 2, "per_task": 2.0}),
        (0, None, {"wanted": 0, "per_task": 0.0}),
        ([], None, {"wanted": [], "per_task": 0.0}),
        (4, 0.0, {"wanted": 4, "per_task": 0.0}),
    ],
)
def test_what_a_configuration_asks_for(wanted: Any, per_task: float | None, asked: Any) -> None:
    assert request(wanted, per_task) == asked


def test_indices_mean_to_a_task_what_nvidia_smi_says() -> None:
    assert environment(["2", "0"]) == {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert environment(["GPU-1", "MIG-2"]) == {"CUDA_VISIBLE_DEVICES": "GPU-1,MIG-2"}
    assert environment([]) == {"CUDA_VISIBLE_DEVICES": ""}


def test_slots_of_a_local_source(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in host(says(FOUR)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def slots(per_task: float | None, **fields: Any) -> int:
        return LocalSource.default_slots(SourceConfig(type="local", **fields), per_task)

    assert slots(None) == cores()
    assert slots(None, gpus=0) == slots(0, gpus="auto") == cores()
    assert (slots(None, gpus="auto"), slots(None, gpus=3), slots(1), slots(2), slots(3, gpus="auto")) == (4, 3, 4, 2, 1)
    assert (slots(0.5), slots(1 / 3, gpus=[1]), slots(0.3, gpus=[1]), slots(0.001, gpus=[1])) == (8, 3, 3, 1000)
    assert slots(None, gpus="auto", env={"set": {"CUDA_VISIBLE_DEVICES": "1,2"}}) == 2
    assert slots(8) == 1, "the source says at its start that there are too few"


def test_the_count_that_torch_keeps_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[bool] = []
    count = SimpleNamespace(cache_clear=lambda: cleared.append(True))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=count)))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "as it was")
    gpus.show(["1"])
    assert cleared == [True]
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    gpus.show(["2"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_a_gpu_that_an_import_uses_is_noticed(tmp_path: Path) -> None:
    """CUDA can't be started on purpose here: the folder stands for /proc/self/fd of a process where it was."""
    (tmp_path / "0").symlink_to("/dev/null")
    (tmp_path / "3").symlink_to("/dev/nvidiactl")
    assert opened(str(tmp_path)) is None
    (tmp_path / "4").symlink_to("/dev/nvidia-uvm")
    assert opened(str(tmp_path)) == "/dev/nvidia-uvm"
    assert opened(str(tmp_path / "none")) is None
    assert opened() is None


def test_nothing_but_the_standard_library_is_needed() -> None:
    """These modules travel to hosts that have nothing of ours but hsm_core.remote."""
    code = "import json, sys, hsm_core.remote.leases; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    ours = {name for name in loaded if name.startswith("hsm_core")}
    assert ours == {"hsm_core", "hsm_core.remote", *(f"hsm_core.remote.{m}" for m in ("gpus", "leases", "process"))}
