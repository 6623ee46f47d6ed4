"""What tasks see of the GPUs they lease, and what is told of them afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_core.sources.local import cores

if TYPE_CHECKING:
    from tests.conftest import FakeGpus
    from tests.integration.conftest import App

# A stand-in for torch before 2.4: it keeps the number of GPUs that it counted first.
TORCH = """
    import os
    from functools import lru_cache

    @lru_cache(maxsize=1)
    def device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return 4 if visible is None else len([name for name in visible.split(",") if name])

    def is_initialized():
        return False
"""
APP = """
    import json
    import os
    import hydra
    import torch.cuda

    COUNT = torch.cuda.device_count()
    ASKED = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")

    @hydra.main(version_base=None, config_path=None)
    def main(cfg):
        names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_NVML_BASED_CUDA_CHECK", "OMP_NUM_THREADS")
        held = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdecimal()
                and os.path.exists(f"/proc/self/fd/{fd}")}
        print(json.dumps({
            "env": [os.environ.get(name) for name in names],
            "count": torch.cuda.device_count(),
            "at import": [COUNT, ASKED],
            "held": sorted(path for path in held if "hsm-gpu" in path),
        }))

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def gpu_app(fake_gpus: FakeGpus, app: App) -> App:
    app.write("torch/__init__.py", "")
    app.write("torch/cuda.py", TORCH)
    app.write("train.py", APP)
    return app


def sources(app: App, **named: str) -> None:
    lines = [f"  {name}: {{type: local, {settings}}}\n" for name, settings in named.items()]
    (app.folder / "hsm_config.yaml").write_text("compute_sources:\n" + "".join(lines))


def started(sweep: Any, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (sweep.directory / ".hsm" / "journal.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def test_a_task_sees_the_gpu_it_leased(gpu_app: App, fake_gpus: FakeGpus, worker: str) -> None:
    sources(gpu_app, local="gpus: [2]")
    sweep = gpu_app.sweep("+x=1,2", worker)
    threads = str(cores())
    told = [json.loads(text) for text in sweep.texts()]
    for one in told:
        assert one["env"] == ["2", "PCI_BUS_ID", None, threads]
        assert one["count"] == 1
        assert one["held"] == [str(fake_gpus.lock_file(2))], "the worker holds the lease too"
        assert one["at import"] == ([4, "1"] if "fork" in worker else [1, None])
    assert [sweep.record(task)["gpus"] for task in (0, 1)] == [["2"], ["2"]]
    assert [line["gpus"] for line in started(sweep, "attempt_started")] == [["2"], ["2"]]
    (source,) = started(sweep, "source_started")
    assert source["slots"] == 1
    model = "NVIDIA A100-SXM4-40GB"
    assert source["facts"]["gpus"] == [{"id": fake_gpus.uuids[2], "name": "2", "model": model}]
    log = (sweep.directory / "logs" / "sources" / "local.log").read_text()
    assert "Task task_001 started on local with GPU 2" in log


def test_uuids_stay_uuids(gpu_app: App, fake_gpus: FakeGpus) -> None:
    """Those that were inherited are the ones to lease, in their notation and order."""
    names = [fake_gpus.uuids[3], fake_gpus.uuids[1]]
    sweep = gpu_app.sweep("+x=1", "hydra.launcher.gpus_per_task=2", env={"CUDA_VISIBLE_DEVICES": ",".join(names)})
    told = json.loads(sweep.text(0))
    assert told["env"][:2] == [",".join(names), None]
    assert told["count"] == 2
    assert sweep.record(0)["gpus"] == names


def test_without_the_settings_nothing_changes(gpu_app: App) -> None:
    sweep = gpu_app.sweep("+x=1")
    told = json.loads(sweep.text(0))
    assert (told["env"][:3], told["count"], told["held"]) == ([None, None, None], 4, [])
    assert sweep.record(0)["gpus"] is None
    (source,) = started(sweep, "source_started")
    assert (source["slots"], "gpus" in source["facts"]) == (cores(), False)


def test_a_source_without_gpus_hides_them(gpu_app: App) -> None:
    sources(gpu_app, local="gpus: 0, max_parallel_tasks: 3")
    sweep = gpu_app.sweep("+x=1")
    told = json.loads(sweep.text(0))
    assert (told["env"][0], told["count"], told["held"]) == ("", 0, [])
    assert (sweep.record(0)["gpus"], started(sweep, "source_started")[0]["slots"]) == ([], 3)


def test_a_source_takes_no_more_tasks_than_its_gpus_hold(gpu_app: App) -> None:
    sources(gpu_app, local="gpus: 2, max_parallel_tasks: 7")
    sweep = gpu_app.sweep("+x=1", "hydra.launcher.gpus_per_task=0.5")
    assert started(sweep, "source_started")[0]["slots"] == 4
    (note,) = started(sweep, "note")
    assert note["message"] == "7 slots become 4: it has 2 GPUs, and each task needs 0.5"


def test_only_the_source_that_lacks_its_gpus_is_lost(gpu_app: App, fake_gpus: FakeGpus) -> None:
    fake_gpus.lock_file(1).symlink_to("/etc/passwd")
    sources(gpu_app, few="gpus: [7]", trap="gpus: [1]", good="gpus: [0]")
    sweep = gpu_app.sweep("+x=1,2")
    assert [line["source"] for line in started(sweep, "attempt_started")] == ["good", "good"]
    told = {line["source"]: line["reason"] for line in started(sweep, "source_disabled")}
    assert told.keys() == {"few", "trap"}
    model = "(NVIDIA A100-SXM4-40GB)"
    assert told["few"] == f"few: gpus: 7 is wanted, but there are 0 {model}, 1 {model}, 2 {model}, 3 {model}"
    assert told["trap"].startswith(f"trap: {fake_gpus.lock_file(1)}, by which users of this host share a GPU, ")


def test_a_dry_run_shows_the_slots(gpu_app: App) -> None:
    done = gpu_app.run(
        "-m", "hydra/launcher=hsm", "hydra.launcher.dry_run=true", "hydra.launcher.gpus_per_task=1", "+x=1"
    )
    assert "local: local, 4 slots" in done.stdout


def test_has_gpu_and_requires_gpu_reach_the_strategy(gpu_app: App) -> None:
    sources(gpu_app, cpu="gpus: 0, max_parallel_tasks: 1", gpu="gpus: 1")
    gpu_app.write(
        "s.py",
        """
        class GPUPreferredStrategy:
            def select_source(self, task, available_sources):
                fitting = [s for s in available_sources if s.has_gpu == task.requires_gpu]
                return min(fitting or available_sources, key=lambda s: s.current_load)
    """,
    )
    sweep = gpu_app.sweep("+x=1", "hydra.launcher.strategy=s.py:GPUPreferredStrategy")
    assert [line["source"] for line in started(sweep, "attempt_started")] == ["cpu"]
