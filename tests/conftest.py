"""What all tests share: a state directory of their own, so that no test sees the user's sweeps; GPUs made of paper."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.remote import leases

pytest.register_assert_rewrite("hsm_core.testing", "hsm_core.conformance")

# Shells start what they put in the background with SIGINT ignored, nohup with SIGHUP ignored; what tests start must be
# able to hear them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`$XDG_STATE_HOME` and `$XDG_CONFIG_HOME` of this test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    return home


@pytest.fixture(autouse=True)
def logging_stays() -> Iterator[None]:
    """What a test that runs Hydra in this process makes of logging does not last: it may turn off all loggers."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


class FakeGpus:
    """Four GPUs by the word of an `nvidia-smi` that comes first in PATH. Nobody else on this host has their UUIDs."""

    def __init__(self, folder: Path) -> None:
        self.uuids = [f"GPU-{uuid.uuid4()}" for _ in range(4)]
        self.folder = folder
        model = "NVIDIA A100-SXM4-40GB"
        listed = "\n".join(f"GPU {i}: {model} (UUID: {name})" for i, name in enumerate(self.uuids))
        queried = "\n".join(f"{name}, 40960, {10000 * i}, [N/A], {model}" for i, name in enumerate(self.uuids))
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncase $1 in -L) echo '{listed}';; *) echo '{queried}';; esac\n")
        program.chmod(0o755)

    def lock_file(self, index: int) -> Path:
        """The real one, where users of this host would share this GPU."""
        return Path(leases._folder(), f"hsm-gpu-{self.uuids[index]}.lock")


@pytest.fixture
def fake_gpus(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus]:
    """GPUs 0 to 3, for this process and all it starts."""
    made = FakeGpus(tmp_path_factory.mktemp("gpus"))
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    yield made
    for index in range(4):
        made.lock_file(index).unlink(missing_ok=True)
