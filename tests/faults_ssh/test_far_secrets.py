"""Secrets that a host is given for its tasks: these see them, and nobody else does, here or there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from hsm_core.testing import wait_until
from tests.faults_ssh.conftest import APP, FarSweep, MakeFar
from tests.testbed.sshd import SshHost

SECRETS = {"TOKEN": "p4ss3d-t0k3n'$x\"", "KEY": "s3t-t0k3n'$y\"", "IN_CONF": "c0nf-t0k3n'$z"}
"""passed on, set in hsm_config.yaml, and set in the app's own configuration"""
DO = "[(out / k).write_text(__import__('hashlib').sha256(os.environ[k].encode()).hexdigest()) for k in KEYS]"
CONF = """
defaults: [{{override hydra/launcher: hsm}}, _self_]
hydra: {{launcher: {{compute_sources: {{far: {{env: {{set: {{IN_CONF: "{}"}}}}}}}}}}}}
"""


def holders(folder: Path) -> set[str]:
    """Files below a folder that hold a secret, in whatever form, with the name of that."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        f"{name} in {path}"
        for path in files
        for name, told in SECRETS.items()
        if told.encode()[:9] in path.read_bytes()
    }


def command_lines() -> Iterable[str]:
    for process in psutil.process_iter():
        try:
            yield "\0".join(process.cmdline())
        except psutil.Error:
            continue


def test_secrets_are_nowhere_but_in_the_tasks(
    make_far: MakeFar, ssh_host: SshHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRETS["TOKEN"])
    far: FarSweep = make_far(ssh_host, {"env": {"pass": ["TOKEN"], "set": {"KEY": SECRETS["KEY"]}}, "setup": ["true"]})
    (far.folder / "conf").mkdir()
    (far.folder / "conf" / "config.yaml").write_text(CONF.format(SECRETS["IN_CONF"]))
    app = APP.replace("config_path=None", 'config_path="conf", config_name="config"')
    (far.folder / "app.py").write_text(app)
    do = DO.replace("KEYS", str([*SECRETS]))
    far.launch("+x=range(4)", "+gated=2", f'+do="{do}"', "+bad=3", "hydra.verbose=true", "hydra.launcher.stream=true")
    far.wait_there(2)
    lines = [*command_lines()]
    assert any("agent" in line for line in lines)
    assert [line for line in lines for secret in SECRETS.values() if secret[:9] in line] == []
    ssh_host.kill_sessions()
    wait_until(lambda: "can't be reached" in far.said(), "the launcher to notice")
    far.kill()
    far.open_gate()
    assert far.complete().wait(60) == 1, far.said()

    for index in range(3):
        for name, secret in SECRETS.items():
            assert far.output(index, name).read_text() == hashlib.sha256(secret.encode()).hexdigest()
    for folder in (far.directory / "0", far.there(0, "")):
        assert "IN_CONF: '***'" in (folder / ".hydra" / "hydra.yaml").read_text()
    # What the app's own configuration holds is part of the app, for nobody else to read.
    conf = [path for path in holders(ssh_host.folder) if path.endswith("/project/conf/config.yaml")]
    code = {f"IN_CONF in {path}" for path in (ssh_host.home / ".hsm" / "code").glob("*/*/conf/config.yaml")}
    assert holders(ssh_host.folder) == {*conf, *code}
    ours = [path for path in holders(far.folder) if not path.endswith("/project/conf/config.yaml")]
    assert sorted(ours) == [f"IN_CONF in {far.folder}/conf/config.yaml", f"KEY in {far.folder}/hsm_config.yaml"]
    assert holders(Path(os.environ["HOME"])) == holders(Path(os.environ["XDG_STATE_HOME"])) == set()
    far.audit()
