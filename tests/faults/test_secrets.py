"""Secrets in the configuration reach the tasks, and are to be seen nowhere else."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hsm_core.testing import wait_until
from tests.faults.conftest import Sweep

NAMES = ("OF_SWEEP_FILE", "OF_HSM_CONFIG", "OF_HYDRA_CONFIG", "OF_LAUNCHER")
SECRETS = {name: f"s3cr3t:{name.lower()}'$x" for name in NAMES}
"""each has the name of the place it comes from"""

APP = """
import hashlib, os, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "starts").write_text(str(os.getpid()))
    gate = Path(HydraConfig.get().runtime.cwd) / "gate"
    while not gate.exists():
        time.sleep(0.02)
    (out / "result.txt").write_text("done")
    if cfg.x == 3:
        raise ValueError("bad point")
    return {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in %r}


if __name__ == "__main__":
    main()
"""


def digests() -> dict[str, str]:
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in SECRETS.items()}


@pytest.fixture
def secretive(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    folder = sweep.folder
    (folder / "app.py").write_text(APP % (NAMES,))
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text(
        "defaults: [{override hydra/launcher: hsm}]\nx: 0\nhydra:\n  launcher:\n    compute_sources:\n"
        f"      server.1-b:\n        env: {{set: {{OF_HYDRA_CONFIG: {quoted('OF_HYDRA_CONFIG')}}}}}\n"
    )
    (folder / "hsm_config.yaml").write_text(
        "compute_sources:\n  server.1-b:\n    type: local\n    env:\n      set:\n"
        f"        OF_HSM_CONFIG: {quoted('OF_HSM_CONFIG')}\n"
    )
    (folder / "sweep.yaml").write_text(
        "app: app.py\nsweep: {grid: {x: [1, 2, 3]}}\nhsm:\n  compute_sources:\n    server.1-b:\n      type: local\n"
        f"      env: {{set: {{OF_SWEEP_FILE: {quoted('OF_SWEEP_FILE')}, OF_LAUNCHER: '${{oc.env:TOKEN}}'}}}}\n"
    )
    monkeypatch.setenv("TOKEN", SECRETS["OF_LAUNCHER"])
    return sweep


def quoted(name: str) -> str:
    return '"' + SECRETS[name] + '"'


def run(sweep: Sweep, *arguments: str) -> subprocess.Popen[bytes]:
    launcher = sweep._start([sys.executable, "-m", "hsm_core", *arguments])
    outputs = sweep.folder / "sweeps" / "outputs"
    wait_until(lambda: any(outputs.glob("*/.hsm/journal.jsonl")) or launcher.poll() is not None, "a sweep")
    assert launcher.poll() is None, sweep.said()
    (sweep.directory,) = outputs.iterdir()
    return launcher


def seen_on_command_lines() -> list[str]:
    """Command lines of this machine that hold a secret."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append("\0".join(process.cmdline()))
        except psutil.Error:
            continue
    assert any("agent" in line for line in lines)
    return [line for line in lines if any(secret in line for secret in SECRETS.values())]


def found(folder: Path, name: str) -> list[Path]:
    """Files below the folder which hold this secret, as it is or as JSON writes it."""
    secret = SECRETS[name].encode()
    return [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and secret in p.read_bytes()]


def test_secrets_are_nowhere_but_in_the_tasks(secretive: Sweep) -> None:
    launcher = run(secretive, "run", "hydra.verbose=true", "hydra.launcher.stream=true")
    task = secretive.directory / "tasks" / "task_001" / "starts"
    wait_until(task.exists, f"the first task; the launcher said:\n{secretive.said()}")
    assert seen_on_command_lines() == []
    os.kill(launcher.pid, 9)
    launcher.wait()
    secretive.wait_for_peace()
    secretive.open_gate()

    assert secretive.complete().wait(60) == 1, secretive.said()
    assert "ValueError: bad point" in secretive.said()
    returned = [t.outcome.return_value for t in secretive.state().tasks.values() if t.outcome and t.outcome.completed]
    assert returned == [digests(), digests()]
    for name in NAMES:
        assert SECRETS[name] not in secretive.said()
        copies = found(secretive.directory, name)
        # What the app's own configuration holds is frozen with it, for nobody else to read.
        assert [str(c.relative_to(secretive.directory / ".hsm")) for c in copies] == (
            ["snapshot/project/conf/config.yaml"] if name == "OF_HYDRA_CONFIG" else []
        )
        assert all(stat.S_IMODE(copy.stat().st_mode) == 0o600 for copy in copies)
        assert found(Path(os.environ["XDG_STATE_HOME"]), name) == []
    hydra_yaml = (secretive.directory / "tasks" / "task_001" / ".hydra" / "hydra.yaml").read_text()
    assert "OF_HYDRA_CONFIG: '***'" in hydra_yaml
    assert "OF_SWEEP_FILE: '***'" in hydra_yaml


@pytest.mark.parametrize("sweeper", ["basic", "hsm"])
def test_what_is_saved_of_the_configuration_is_masked(secretive: Sweep, sweeper: str) -> None:
    secretive.open_gate()
    (secretive.folder / "hsm_config.yaml").unlink()
    app = (secretive.folder / "app.py").read_text().replace(repr(NAMES), "['OF_HYDRA_CONFIG']")
    (secretive.folder / "app.py").write_text(app)
    source = "++hydra.launcher.compute_sources={server.1-b:{type:local}}"
    assert secretive.launch("x=1,2", f"hydra/sweeper={sweeper}", source).wait(60) == 0, secretive.said()
    assert "OF_HYDRA_CONFIG: '***'" in (secretive.directory / "multirun.yaml").read_text()
    value = {"OF_HYDRA_CONFIG": digests()["OF_HYDRA_CONFIG"]}
    assert [t.outcome.return_value for t in secretive.state().tasks.values() if t.outcome] == [value, value]
    secretive.audit()


def test_only_their_owner_may_look_into_what_is_hsms_own(secretive: Sweep) -> None:
    secretive.open_gate()
    run(secretive, "run", "x=1").wait(60)
    hsm = secretive.directory / ".hsm"
    assert stat.S_IMODE(hsm.stat().st_mode) == 0o700
    for path in [*(hsm / "payload").rglob("*"), *(hsm / "results").rglob("*"), hsm / "journal.jsonl"]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_secret_that_is_gone_from_the_sweep_file(secretive: Sweep) -> None:
    launcher = run(secretive, "run")
    wait_until((secretive.directory / "tasks" / "task_001" / "starts").exists, "the first task")
    os.kill(launcher.pid, 9)
    launcher.wait()
    path = secretive.folder / "sweep.yaml"
    path.write_text(path.read_text().replace("OF_SWEEP_FILE", "RENAMED"))
    assert secretive.complete().wait(60) == 2
    where = "sweep.yaml: hsm.compute_sources.server.1-b.env.set.OF_SWEEP_FILE"
    assert f"{where}: is gone since the sweep began; put it back" in secretive.said()
    assert "Traceback" not in secretive.said()
