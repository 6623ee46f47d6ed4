"""A task under hsm sees and leaves what it sees and leaves under Hydra's basic launcher."""

from __future__ import annotations

import difflib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from tests.integration.conftest import App

OWN = {".hsm", "logs", "reports", "errors", "failed_tasks"}
"""what hsm adds to the sweep's directory"""
EXTRA = {"stdout.log", "stderr.log"}
"""what hsm adds to a task's"""

CONFIG = """
defaults:
  - db: mysql
  - _self_
lr: 1
text: "ünï 'quoted' \\"text\\" 日本"
doubled: ${double:${lr}}
main_only: ${from_main:x}
first: ${once:0}
job: ${hydra:job.num}
cwd: ${hydra:runtime.cwd}
choice: ${hydra:runtime.choices.db}
year: ${now:%Y}
user: ${oc.env:APP_USER}
hydra:
  sweep:
    subdir: ${hydra.job.num}_${hydra.job.override_dirname}
  job:
    chdir: true
    env_set:
      APP_USER: user-${hydra.runtime.choices.db}
    env_copy: [APP_COPY]
    config:
      override_dirname:
        exclude_keys: [text]
  callbacks:
    notes:
      _target_: notes.Notes
      name: first
"""

NOTES = '''
"""A callback that writes down when it is called and what it is given."""
import json, os
from pathlib import Path
from hydra.experimental.callback import Callback

class Notes(Callback):
    def __init__(self, name):
        self.name = name

    def _note(self, event, config, **facts):
        path = Path(config.hydra.runtime.output_dir if "job" in event else config.hydra.sweep.dir, "notes.jsonl")
        facts = {"event": event, "name": self.name, "num": config.hydra.job.get("num"), "cwd": os.getcwd(), **facts}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as f:
            f.write(json.dumps(facts) + "\\n")

    def on_multirun_start(self, config, **kwargs):
        self._note("multirun_start", config)

    def on_job_start(self, config, **kwargs):
        self._note("job_start", config, user=os.environ.get("APP_USER"), keys=sorted(kwargs))

    def on_job_end(self, config, job_return, **kwargs):
        self._note("job_end", config, status=job_return.status.name, value=job_return._return_value["lr"],
                   task=job_return.task_name, working_dir=job_return.working_dir, overrides=list(job_return.overrides))

    def on_multirun_end(self, config, **kwargs):
        self._note("multirun_end", config)
'''

TRAIN = """
import json, locale, logging, os, signal, sys, threading, warnings
from dataclasses import dataclass
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path
from omegaconf import OmegaConf

log = logging.getLogger(__name__)
OmegaConf.register_new_resolver("double", lambda x: 2 * x)
OmegaConf.register_new_resolver("once", lambda x: "first", replace=False)

@dataclass
class Thing:
    x: int = 3

def facts():
    # Python 3.10 to 3.13 makes __annotations__ in the first main module only.
    main = sys.modules["__main__"]
    names = sorted({*main.__dict__} - {"__annotations__"})
    return {
        "name": __name__, "file": __file__, "argv": [a for a in sys.argv if "launcher" not in a], "path": sys.path,
        "main": [main.__name__, main.__file__, str(main.__spec__), str(main.__package__), names],
        "thing": Thing.__module__, "logger": log.name, "handlers": [type(h).__name__ for h in logging.root.handlers],
        "level": logging.root.level, "locale": locale.getlocale(), "thread": threading.current_thread().name,
        "sigint": str(signal.getsignal(signal.SIGINT)), "sigterm": str(signal.getsignal(signal.SIGTERM)),
        "sighup": str(signal.getsignal(signal.SIGHUP)),
        "sigchld": str(signal.getsignal(signal.SIGCHLD)), "blocked": len(signal.pthread_sigmask(0, [])),
        "stdin": sys.stdin.read(), "filters": len(warnings.filters), "flags": str(sys.flags), "x": sys._xoptions,
        "umask": oct(os.umask(0o022)), "dont_write": sys.dont_write_bytecode, "hook": str(sys.excepthook),
        "wakeup": signal.set_wakeup_fd(-1), "trace": str(sys.gettrace()), "recursion": sys.getrecursionlimit(),
    }

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    log.info("training with %s", cfg.lr)
    logging.getLogger("other").warning("a warning")
    log.debug("not seen")
    own = HydraConfig.get()
    return {"lr": cfg.lr} if os.environ.get("APP_SHORT") else told(cfg, own)

def told(cfg, own):
    hidden = ("HSM_", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "VECLIB_", "BLIS_")
    data = {
        "cfg": OmegaConf.to_container(cfg, resolve=True), "type": type(cfg).__name__, "own": own.job.name,
        "num": own.job.num, "id": own.job.id, "output": own.runtime.output_dir, "mode": str(own.mode),
        "sources": OmegaConf.to_container(own.runtime.config_sources), "dirname": own.job.override_dirname,
        "choices": {k: v for k, v in own.runtime.choices.items() if k != "hydra/launcher"},
        "cwd": os.getcwd(), "original": get_original_cwd(), "absolute": to_absolute_path("x"),
        "flags": [OmegaConf.is_struct(cfg), OmegaConf.is_readonly(cfg), OmegaConf.is_readonly(own)],
        "env": {k: v for k, v in os.environ.items() if not k.startswith(hidden)}, "process": facts(),
    }
    with open("facts.json", "w") as f:
        json.dump(data, f, indent=1, sort_keys=True)
    return {"lr": cfg.lr}

if __name__ == "__main__":
    OmegaConf.register_new_resolver("from_main", lambda x: x + "!")
    main()
"""


def files(directory: Path) -> dict[str, str]:
    """What a sweep left, by relative path, with times and what must differ taken out."""
    found = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory)
        if path.is_file() and name.parts[0] not in OWN and name.name not in EXTRA:
            found[str(name)] = _comparable(path)
    return found


def _comparable(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".log":
        return re.sub(r"^\[[\d: ,-]+\]", "[time]", text, flags=re.MULTILINE)
    if path.name in ("hydra.yaml", "multirun.yaml"):
        data = yaml.safe_load(text)
        own = data["hydra"]
        del own["launcher"], own["runtime"]["choices"]["hydra/launcher"]
        own["overrides"]["hydra"] = [o for o in own["overrides"]["hydra"] if "launcher" not in o]
        return json.dumps(data, indent=1, sort_keys=True)
    return text


WAYS = {
    "basic": [],
    "fork": ["hydra.launcher.worker=fork"],
    "spawn": ["hydra.launcher.worker=spawn"],
}
SWEEP = ["lr=1,2.5", "db=mysql,pg", "text='a, b=\\'ü\\'','/\"x\" $HOME'", "+extra={a:[1,null]}"]


@pytest.fixture(scope="module")
def left(shared_app: App) -> dict[str, dict[str, str]]:
    """The files of one sweep, run in the same place under the basic launcher and each way of hsm."""
    app = shared_app
    app.write("conf/config.yaml", CONFIG)
    app.write("conf/db/mysql.yaml", "driver: mysql\nport: 3306\n")
    app.write("conf/db/pg.yaml", "driver: pg\nport: 5432\n")
    app.write("notes.py", NOTES)
    app.write("train.py", TRAIN)
    found = {}
    for way, options in WAYS.items():
        sweep = app.sweep(*SWEEP, *options, launcher="basic" if way == "basic" else "hsm", env={"APP_COPY": "copied"})
        found[way] = files(sweep.directory)
        shutil.rmtree(sweep.directory)
    return found


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_the_same_files(left: dict[str, dict[str, str]], way: str) -> None:
    assert sorted(left[way]) == sorted(left["basic"])


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_the_same_content(left: dict[str, dict[str, str]], way: str) -> None:
    basic, ours = left["basic"], left[way]
    different = [
        f"{name}: {line}"
        for name in basic
        for line in difflib.unified_diff(basic[name].splitlines(), ours[name].splitlines(), "basic", way, "", "", 0)
    ]
    assert not different, "\n".join(different)


STRUCTURED = """
import logging
from dataclasses import dataclass, field
import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

@dataclass
class Optimizer:
    lr: float = 0.1
    betas: list = field(default_factory=lambda: [0.9, 0.99])

@dataclass
class Config:
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = MISSING

logging.getLogger("imported").setLevel(logging.ERROR)

@hydra.main(version_base="1.3", config_name="main")
def main(cfg: Config):
    logging.getLogger(__name__).debug("verbose %s", cfg.steps)
    logging.getLogger("imported").warning("not seen")
    assert isinstance(cfg.steps, int)

if __name__ == "__main__":
    ConfigStore.instance().store(name="main", node=Config)
    main()
"""


def test_structured_configs_and_other_places_and_names(app: App, worker: str) -> None:
    app.write("train.py", STRUCTURED)
    options = ["steps=1,2", "optimizer.lr=1e-3", "+new.key=5", "hydra.output_subdir=meta", "hydra.job.name=other"]
    options += ["hydra.verbose=[__main__]"]
    options += ["hydra.job_logging.handlers.file.filename=${hydra.job.name}_${hydra.job.num}.txt"]
    basic = app.sweep(*options, launcher="basic")
    expected = files(basic.directory)
    shutil.rmtree(basic.directory)
    sweep = app.sweep(*options, worker)
    assert files(sweep.directory) == expected


def test_the_time_in_the_directory_is_that_of_the_launch(app: App, worker: str) -> None:
    app.write(
        "train.py",
        """
        import hydra
        from hydra.core.hydra_config import HydraConfig

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def main(cfg):
            return HydraConfig.get().sweep.dir

        if __name__ == "__main__":
            main()
        """,
    )
    sweep = app.sweep("lr=1,2,3", worker, to="runs/${now:%Y-%m-%d_%H-%M-%S-%f}")
    (sweep.directory,) = (app.folder / "runs").iterdir()
    assert [sweep.outcome(task).return_value for task in range(3)] == [f"runs/{sweep.directory.name}"] * 3


LOOK = """
import json
import os
from omegaconf import OmegaConf

def look(job):
    hydra_cfg = OmegaConf.to_container(job.hydra_cfg)["hydra"]
    del hydra_cfg["launcher"], hydra_cfg["runtime"]["choices"]["hydra/launcher"]
    hydra_cfg["overrides"]["hydra"] = [o for o in hydra_cfg["overrides"]["hydra"] if "launcher" not in o]
    told = [OmegaConf.to_yaml(job.cfg), json.dumps(hydra_cfg, default=str), OmegaConf.is_struct(job.cfg)]
    return [*told, job.overrides, os.path.relpath(job.working_dir), job.task_name, job.status.name, job.return_value]
"""


def test_the_sweeper_gets_the_same_from_either_launcher(app: App, worker: str) -> None:
    app.write(
        "train.py",
        """
        import hydra

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def main(cfg):
            return [cfg.lr, cfg.n]

        if __name__ == "__main__":
            main()
        """,
    )
    app.write("conf/config.yaml", "lr: 1\nn: ${hydra:job.num}\ntwice: ${double:${lr}}\n")
    app.probed(LOOK)
    app.write("hydra_plugins/resolvers.py", RESOLVERS)
    basic = app.sweep("hydra/sweeper=probe", "lr=3", "lr=4", "hydra.job.chdir=true", launcher="basic")
    expected = app.returned()
    shutil.rmtree(basic.directory)
    app.sweep("hydra/sweeper=probe", "lr=3", "lr=4", "hydra.job.chdir=true", worker)
    assert app.returned() == expected
    assert [told[-1] for told in expected] == [[3, 0], [4, 1]]


RESOLVERS = """
from omegaconf import OmegaConf
OmegaConf.register_new_resolver("double", lambda x: 2 * x, replace=True)
"""
