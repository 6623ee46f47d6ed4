"""Whole sweeps of an app on a host, as a user starts them: what a task finds there is what it would find here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.sshd import SshHost

APP = """
import os
from pathlib import Path

import hydra
import helper
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    return {
        "group": cfg.db.name, "data": Path(cfg.data).read_text(), "code": helper.VALUE, "cwd": os.getcwd(),
        "user": os.getuid(), "output": HydraConfig.get().runtime.output_dir, "lr": cfg.lr,
    }


if __name__ == "__main__":
    main()
"""
FILES = {
    "train.py": APP,
    "helper.py": "VALUE = 'first'\n",
    "data.txt": "some data",
    "conf/config.yaml": "defaults: [{db: a}, _self_]\nlr: 1\ndata: ${hydra:runtime.cwd}/data.txt\nmodels: null\n",
    "conf/db/a.yaml": "name: A\n",
    "conf/db/b.yaml": "name: B\n",
    "sweep.yaml": "app: train.py\nsweep:\n  grid:\n    db: [a, b]\n    lr: [1, 2]\n",
}


class Project:
    def __init__(self, folder: Path, host: SshHost, python: Path) -> None:
        self.folder = folder
        self.host = host
        self.python = python
        for name, text in FILES.items():
            self.write(name, text)
        self.configure()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def configure(self, **more: object) -> None:
        found = self.host.config(python=str(self.python), max_parallel_tasks=2, **more)
        keys = ("type", "host", "port", "user", "ssh_key", "python", "max_parallel_tasks", *more)
        source = {key: getattr(found, key) for key in keys}
        self.write("hsm_config.yaml", json.dumps({"compute_sources": {"far": source}}))

    def run(self, *command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def returned(self, sweep: Path) -> list[dict[str, object]]:
        records = sorted((sweep / ".hsm" / "results").glob("*.json"))
        return [json.loads(record.read_text())["return_value"]["value"] for record in records]


@pytest.fixture
def project(ssh_host: SshHost, far_python: Path, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", ssh_host, far_python)


def test_a_sweep_file_over_groups(project: Project) -> None:
    project.run("-m", "hsm_core", "run", "--config", "sweep.yaml", "--sources", "far:2")
    (sweep,) = (project.folder / "sweeps" / "outputs").iterdir()
    told = project.returned(sweep)
    assert [(task["group"], task["lr"]) for task in told] == [("A", 1), ("A", 2), ("B", 1), ("B", 2)]
    assert {task["user"] for task in told} == {project.host.uid}
    assert {task["data"] for task in told} == {"some data"}
    for number, task in enumerate(told, start=1):
        name = f"tasks/task_{number:03d}"
        assert str(task["output"]).endswith(f"/far/{name}")
        assert {path.name for path in (sweep / name).iterdir()} >= {".hydra", "stdout.log", "train.log"}


def test_paths_of_the_project_are_those_there_and_others_are_told(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "models"
    elsewhere.mkdir(mode=0o700)
    said = project.run(
        "train.py", "-m", "hydra/launcher=hsm", "hydra.sweep.dir=out", f"data={project.folder}/data.txt",
        f"models={elsewhere}", "lr=1,2",
    )  # fmt: skip
    told = project.returned(project.folder / "out")
    assert {task["data"] for task in told} == {"some data"}
    assert {str(task["cwd"]).startswith(f"{project.host.home}/.hsm/code/project-") for task in told} == {True}
    assert said.count(f"the configuration names what is on this machine only: '{elsewhere}'") == 1


def test_code_that_is_there_is_used_where_it_is_named(project: Project) -> None:
    for name, text in FILES.items():
        path = project.host.home / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("first", "theirs").replace("name: B", "name: other"))
    subprocess.run(["chown", "-R", str(project.host.uid), str(project.host.home / "train")], check=True)
    project.configure(project_dir="~/train")
    project.run("train.py", "-m", "hydra/launcher=hsm", "hydra.sweep.dir=out", "db=a,b")
    told = project.returned(project.folder / "out")
    assert [(task["code"], task["group"]) for task in told] == [("theirs", "A"), ("theirs", "other")]
    assert {task["cwd"] for task in told} == {str(project.host.home / "train")}


def test_what_changed_since_the_last_sweep_is_what_is_sent(project: Project) -> None:
    project.run("train.py", "-m", "hydra/launcher=hsm", "hydra.sweep.dir=one", "lr=1")
    project.write("helper.py", "VALUE = 'second'\n")
    project.run("train.py", "-m", "hydra/launcher=hsm", "hydra.sweep.dir=two", "lr=1")
    assert project.returned(project.folder / "one")[0]["code"] == "first"
    assert project.returned(project.folder / "two")[0]["code"] == "second"
    versions = [path for path in (project.host.home / ".hsm" / "code").glob("project-*/*") if path.is_dir()]
    assert len(versions) == 2
    assert len({(version / "data.txt").stat().st_ino for version in versions}) == 1, "what is the same is there once"
