"""Tasks run what was there when the sweep started, whatever becomes of the files since."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsm_core.journal import replay
from hsm_core.task import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import App, Gate

TRAIN = """
import inspect
import os
import hydra
import helper
from package import member

VALUE = "old"

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    WAIT
    import lazy
    from package import lazy_member
    from inspected import function
    if cfg.fail:
        helper.fail()
    return {
        "script": VALUE, "module": helper.VALUE, "member": member.VALUE, "lazy": lazy.VALUE, "data": lazy.data(),
        "lazy_member": lazy_member.VALUE, "config": cfg.value, "group": cfg.db.value, "package": cfg.extra.value,
        "searched": cfg.more.value, "source": inspect.getsource(function).split()[-1],
    }

if __name__ == "__main__":
    main()
"""
LAZY = """
from pathlib import Path

VALUE = "old"

def data():
    return Path(__file__).with_name("data.txt").read_text()
"""
CONFIG = """
defaults:
  - db: a
  - extra: e
  - more: m
  - _self_
value: old
fail: false
hydra:
  searchpath: [pkg://package.configs, "file://../beside"]
"""
FILES = {
    "train.py": TRAIN,
    "helper.py": "VALUE = 'old'\n\ndef fail():\n    raise ValueError('old line')\n",
    "lazy.py": LAZY,
    "inspected.py": "def function():\n    return 'old'\n",
    "package/__init__.py": "",
    "package/member.py": "VALUE = 'old'\n",
    "package/lazy_member.py": "VALUE = 'old'\n",
    "package/configs/__init__.py": "",
    "package/configs/extra/e.yaml": "value: old\n",
    "conf/config.yaml": CONFIG,
    "conf/db/a.yaml": "value: old\n",
    "conf/db/b.yaml": "value: old b\n",
    "../beside/more/m.yaml": "value: old\n",
}
WORDS = ["script", "module", "member", "lazy", "lazy_member", "config", "package", "searched"]


def write(app: App, gate: Gate) -> None:
    """The app, whose first task waits at the gate."""
    for name, text in FILES.items():
        app.write(name, text.replace("WAIT", gate.WAIT))
    app.write("data.txt", "data")


def edit(app: App) -> None:
    """Change every file of the app in one way or another."""
    for name in ("train.py", "helper.py"):
        path = app.folder / name
        path.write_text("raise RuntimeError('new code')\n" + path.read_text())
    app.write("inspected.py", "def other():\n    pass\n\ndef function():\n    return 'new'\n")
    app.write("data.txt", "new data")
    (app.folder / "lazy.py").unlink()
    shutil.rmtree(app.folder / "package")
    app.write("package.py", "raise RuntimeError('new code')\n")
    app.write("conf/config.yaml", CONFIG.replace("value: old", "value: new"))
    app.write("conf/db/a.yaml", "value: new\n")
    (app.folder / "conf" / "db" / "b.yaml").unlink()
    shutil.rmtree(app.folder.parent / "beside")


def swept_while_edited(
    app: App, gate: Gate, *overrides: str, program: Sequence[str] = ("train.py",)
) -> tuple[list[Outcome], str]:
    """Run the tasks one after the other; the files are edited while the first one runs."""
    with app.started(*overrides, "hydra.launcher.sources='local:1'", program=program) as launcher:
        said = gate.reached(launcher)
        edit(app)
        gate.open()
        said += launcher.communicate()[0]
    tasks = replay(app.folder / "out" / ".hsm" / "journal.jsonl").state.tasks
    return [task.outcome for _, task in sorted(tasks.items()) if task.outcome is not None], said


def test_no_edit_reaches_a_waiting_task(app: App, gate: Gate, worker: str) -> None:
    write(app, gate)
    outcomes, said = swept_while_edited(app, gate, "db=a,b,a", worker)
    told: list[Any] = [outcome.return_value for outcome in outcomes]
    assert all(outcome.completed for outcome in outcomes), said
    assert told == [
        {**dict.fromkeys(WORDS, "old"), "source": "'old'", "data": "new data", "group": group}
        for group in ("old", "old b", "old")
    ]


def test_tracebacks_show_the_lines_that_ran(app: App, gate: Gate, worker: str) -> None:
    write(app, gate)
    outcomes, said = swept_while_edited(app, gate, "fail=true", "db=a,b", worker)
    assert [outcome.message for outcome in outcomes] == ["ValueError: old line"] * 2
    for task in ("1", "2"):
        error = (app.folder / "out" / "errors" / f"task_00{task}_error.txt").read_text()
        assert "raise ValueError('old line')" in error
    assert "new code" not in said


def git(folder: Path, *arguments: str) -> str:
    names = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
    env = os.environ | {f"GIT_{name}": "somebody" for name in names} | {"GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def frozen_files(app: App) -> list[str]:
    folder = app.folder / "out" / ".hsm" / "snapshot"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*/*") if path.is_file())


SIMPLE = """
import hydra
from untracked import VALUE

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    return [cfg.lr, VALUE, "clean"]

if __name__ == "__main__":
    main()
"""


def test_a_dirty_work_tree_is_frozen_as_it_is(app: App, worker: str) -> None:
    app.write("code/train.py", SIMPLE)
    app.write("code/conf/config.yaml", "lr: 1\n")
    app.write(".gitignore", "ignored*\nout\nbig.py\n")
    app.write("tools/other.py", "")
    git(app.folder, "init", "-q")
    git(app.folder, "add", ".")
    git(app.folder, "commit", "-q", "-m", "first")
    app.write("code/train.py", SIMPLE.replace('"clean"', '"dirty"'))
    app.write("code/untracked.py", "VALUE = 'untracked'\n")
    app.write("code/ignored.py", "")
    app.write("tools/data.csv", "1,2\n")
    (app.folder / "tools" / "other.py").unlink()
    sweep = app.sweep("lr=1,2", worker, program=["code/train.py"])
    assert [sweep.outcome(task).return_value for task in range(2)] == [[lr, "untracked", "dirty"] for lr in (1, 2)]
    names = ["code/conf/config.yaml", "code/train.py", "code/untracked.py", "conf/config.yaml"]
    assert frozen_files(app) == [f"project/{name}" for name in names]
    first = json.loads((sweep.directory / ".hsm" / "journal.jsonl").read_text().splitlines()[0])
    assert (first["commit"], first["dirty"]) == (git(app.folder, "rev-parse", "HEAD"), True)


def test_what_is_frozen_without_git(app: App) -> None:
    app.write("train.py", SIMPLE)
    app.write("untracked.py", "VALUE = 1\n")
    app.write("venv/pyvenv.cfg", "")
    app.write("venv/lib/big.py", "")
    app.write("outputs/2026/config.yaml", "")
    app.write(".hidden/x.py", "")
    app.write("__pycache__/x.py", "")
    app.write("data/numbers.bin", "")
    app.write("sub/deep/module.py", "")
    app.write("old/.hsm/journal.jsonl", "")
    app.write("old/0/.hydra/config.yaml", "")
    app.sweep("lr=1")
    names = ["conf/config.yaml", "sub/deep/module.py", "train.py", "untracked.py"]
    assert frozen_files(app) == [f"project/{name}" for name in names]
    snapshot = app.folder / "out" / ".hsm" / "snapshot"
    assert oct(snapshot.stat().st_mode & 0o777) == "0o700"


def test_the_app_behind_a_link(tmp_path: Path, app: App, gate: Gate, worker: str) -> None:
    """A file is frozen under all its names."""
    write(app, gate)
    (tmp_path / "link").symlink_to(app.folder, target_is_directory=True)
    program = [str(tmp_path / "link" / "train.py")]
    outcomes, said = swept_while_edited(app, gate, "db=a,b", worker, program=program)
    assert all(outcome.completed for outcome in outcomes), said
    assert [outcome.return_value["script"] for outcome in outcomes] == ["old", "old"]
