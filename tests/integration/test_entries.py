"""However an app is started, its tasks run: each is the app's own function, reached by the app's own entry."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import App, Sweep

TRAIN = """
import sys
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    return [__name__, cfg.lr]

if __name__ == "__main__":
    main()
"""


def kind(sweep: Sweep) -> str:
    """How the tasks got their function: script, module or value."""
    payload = json.loads((sweep.directory / ".hsm" / "payload" / "payload.json").read_text())
    return str(payload["entry"]["kind"])


def values(sweep: Sweep) -> list[object]:
    return [sweep.outcome(task).return_value for task in sorted(sweep.state.tasks)]


MAIN = [["__main__", 1], ["__main__", 2]]


@pytest.mark.parametrize("program", ["train.py", "./train.py", "../app/train.py", "{}/train.py", "link.py"])
def test_a_script(app: App, program: str) -> None:
    app.write("train.py", TRAIN)
    (app.folder / "link.py").symlink_to("train.py")
    sweep = app.sweep("lr=1,2", program=[program.format(app.folder)])
    assert values(sweep) == MAIN
    assert kind(sweep) == "script"


def test_a_script_from_another_folder(app: App, worker: str) -> None:
    app.write("src/train.py", TRAIN)
    app.write("src/conf/config.yaml", "lr: 0")
    app.write("src/near.py", "")
    app.write("src/train.py", TRAIN.replace("import sys", "import near, os").replace("cfg.lr", "cfg.lr, os.getcwd()"))
    to = str(app.folder / "out")
    sweep = app.sweep("lr=1,2", worker, program=["../src/train.py"], cwd=app.folder / "conf", to=to)
    assert values(sweep) == [["__main__", lr, str(app.folder / "conf")] for lr in (1, 2)]


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (["-m", "pkg.train"], "pkg.train"),
        (["-mpkg.train"], "pkg.train"),
        (["-m", "pkg"], "pkg.__main__"),
        (["-m", "train"], "train"),
        (["-X", "dev", "-W", "ignore", "-m", "pkg.train"], "pkg.train"),
    ],
)
def test_a_module(app: App, worker: str, program: list[str], name: str) -> None:
    train = TRAIN.replace("cfg.lr", "cfg.lr, __spec__.name, __package__, sys.argv[1:2]")
    app.write("train.py", train)
    app.write("pkg/__init__.py", "")
    app.write("pkg/near.py", "VALUE = 5")
    app.write("pkg/train.py", "from .near import VALUE\nassert VALUE == 5\n" + train)
    shutil.copy(app.folder / "pkg" / "train.py", app.folder / "pkg" / "__main__.py")
    app.write("pkg/conf/config.yaml", "lr: 0")
    sweep = app.sweep("lr=1,2", worker, program=program)
    assert values(sweep) == [["__main__", lr, name, name.rpartition(".")[0], ["-m"]] for lr in (1, 2)]
    assert kind(sweep) == "module"


def test_a_folder_with_a_main_file(app: App) -> None:
    app.write("tool/near.py", "VALUE = 5")
    app.write("tool/__main__.py", "from near import VALUE\n" + TRAIN)
    app.write("tool/conf/config.yaml", "lr: 0")
    assert values(app.sweep("lr=1,2", program=["tool"])) == MAIN


CONSOLE_SCRIPT = """
import re
import sys
from trainer.cli import main
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
    sys.exit(main())
"""


def test_an_installed_console_script(app: App, worker: str) -> None:
    app.write("site/trainer/__init__.py", "NUMBER = 7")
    app.write("site/trainer/cli.py", "from trainer import NUMBER\n" + TRAIN.replace("cfg.lr", "cfg.lr, NUMBER"))
    app.write("site/trainer/conf/config.yaml", "lr: 0")
    app.write("site/trainer/conf/__init__.py", "")
    script = app.write("bin/train", CONSOLE_SCRIPT)
    elsewhere = app.folder / "elsewhere"
    elsewhere.mkdir()
    path = os.pathsep.join([str(app.folder / "site"), app.environment.get("PYTHONPATH", "")])
    to = str(app.folder / "out")
    sweep = app.sweep("lr=1,2", worker, program=[str(script)], cwd=elsewhere, env={"PYTHONPATH": path}, to=to)
    assert values(sweep) == [["trainer.cli", 1, 7], ["trainer.cli", 2, 7]]
    copies = sweep.directory / ".hsm" / "snapshot" / "project"
    assert (copies / "trainer" / "__init__.py").read_text().strip() == "NUMBER = 7"


def test_a_decorator_above_and_one_below(app: App, worker: str) -> None:
    app.write(
        "train.py",
        """
        import functools
        import hydra

        entered = []

        def inside(function):
            @functools.wraps(function)
            def wrapper(*args):
                entered.append(function.__name__)
                return function(*args)
            return wrapper

        @inside
        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        @inside
        def main(cfg):
            return [cfg.lr, entered]

        if __name__ == "__main__":
            main()
        """,
    )
    assert values(app.sweep("lr=1,2", worker)) == [[1, ["main", "main"]], [2, ["main", "main"]]]


def test_a_callable_object(app: App, worker: str) -> None:
    app.write(
        "train.py",
        """
        import hydra

        class Trainer:
            def __init__(self, offset):
                self.offset = offset

            def __call__(self, cfg):
                return cfg.lr + self.offset

        if __name__ == "__main__":
            hydra.main(version_base="1.3", config_path=None)(Trainer(10))()
        """,
    )
    assert values(app.sweep("+lr=1,2", worker)) == [11, 12]


def test_a_wrapper_in_another_module(app: App, worker: str) -> None:
    app.write("lib/__init__.py", "")
    app.write("lib/job.py", TRAIN)
    app.write("lib/conf/config.yaml", "lr: 0")
    app.write("lib/conf/__init__.py", "")
    app.write("lib/start.py", "from lib.job import main\n\ndef start():\n    main()\n")
    app.write("train.py", "from lib.start import start\nif __name__ == '__main__':\n    start()\n")
    assert values(app.sweep("lr=1,2", worker)) == [["lib.job", 1], ["lib.job", 2]]


def test_what_stands_around_main_runs_once_and_not_per_task(app: App) -> None:
    app.write(
        "train.py",
        """
        import os
        import hydra

        def note(what):
            with open(os.environ["NOTES"], "a") as f:
                f.write(what + "\\n")

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def main(cfg):
            return [cfg.lr, number]

        if __name__ == "__main__":
            note("before")
            number = 3
            try:
                main()
            finally:
                note("after")
        """,
    )
    notes = app.folder / "notes"
    sweep = app.sweep("lr=1,2,3,4", env={"NOTES": str(notes)})
    assert values(sweep) == [[lr, 3] for lr in (1, 2, 3, 4)]
    assert notes.read_text().split() == ["before", "before", "after"], "once here, once for the agent"


def test_an_app_that_changes_its_arguments(app: App, worker: str) -> None:
    app.write(
        "train.py",
        """
        import sys
        import hydra

        sys.argv = ["renamed", *(a for a in sys.argv[1:] if not a.startswith("--local"))]
        sys.argv.append("+added=1")

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def main(cfg):
            return [cfg.lr, cfg.added, sys.argv[0], sys.argv.count("+added=1")]

        if __name__ == "__main__":
            main()
        """,
    )
    sweep = app.sweep("--local-rank=0", "lr=1,2", worker)
    assert values(sweep) == [[lr, 1, "renamed", 1] for lr in (1, 2)]


def test_an_app_that_changes_its_folder(app: App, worker: str) -> None:
    app.write("scripts/train.py", "import os\nos.chdir('..')\n" + TRAIN.replace("cfg.lr", "cfg.lr, os.getcwd()"))
    app.write("scripts/conf/config.yaml", "lr: 0")
    sweep = app.sweep("lr=1,2", worker, cwd=app.folder / "scripts")
    assert values(sweep) == [["__main__", lr, str(app.folder)] for lr in (1, 2)]
    assert sorted(p.name for p in sweep.directory.iterdir() if p.name.isdigit()) == ["0", "1"]


def test_the_second_of_two_hydra_functions(app: App) -> None:
    app.write(
        "train.py",
        """
        import sys
        import hydra

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def prepare(cfg):
            return "prepared"

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def main(cfg):
            return cfg.lr

        if __name__ == "__main__":
            arguments = list(sys.argv)
            sys.argv.append("hydra.sweep.dir=prepared")
            prepare()
            sys.argv = arguments
            main()
        """,
    )
    assert values(app.sweep("lr=1,2")) == [1, 2]


def test_no_configuration_at_all(app: App, worker: str) -> None:
    shutil.rmtree(app.folder / "conf")
    app.write("train.py", TRAIN.replace('config_path="conf", config_name="config"', "config_path=None"))
    assert values(app.sweep("+lr=1,2", worker)) == MAIN


@pytest.mark.parametrize(
    "options",
    [
        ["+extra=one", "--config-dir", "more"],
        ["+extra=one", "--config-dir={}/more"],
        ["hydra.searchpath=[file://more]", "+extra=one"],
        ["hydra.searchpath=[pkg://pack.configs]", "+extra=one"],
        ["--config-name", "other"],
        ["--config-path", "more", "--config-name", "own"],
        ["--config-path={}/more", "--config-name=own"],
    ],
)
def test_configuration_from_elsewhere(app: App, worker: str, options: list[str]) -> None:
    app.write("train.py", TRAIN.replace("cfg.lr", "cfg.lr, cfg.extra.size"))
    app.write("more/extra/one.yaml", "size: 5")
    app.write("pack/__init__.py", "")
    app.write("pack/configs/__init__.py", "")
    app.write("pack/configs/extra/one.yaml", "size: 5")
    app.write("conf/other.yaml", "lr: 0\nextra: {size: 5}")
    app.write("more/own.yaml", "defaults: [extra: one, _self_]\nlr: 0")
    sweep = app.sweep("lr=1,2", worker, *[option.format(app.folder) for option in options])
    assert values(sweep) == [["__main__", 1, 5], ["__main__", 2, 5]]


STRANGE = "ünï cödé '日本' \"x\" $HOME; echo `date` (1)"
QUOTED = "'ünï cödé \\'日本\\' \"x\" $HOME; echo `date` (1)'"


def test_strange_characters_everywhere(tmp_path: Path, app: App, worker: str) -> None:
    app.folder = app.folder.rename(tmp_path / STRANGE)
    imports = "from hydra.core.hydra_config import HydraConfig\nfrom omegaconf import OmegaConf\n"
    returned = "OmegaConf.to_object(cfg), HydraConfig.get().job.name, sys.argv[-1]"
    app.write("prüfung.py", imports + TRAIN.replace("cfg.lr", returned))
    app.write("conf/size/weiß.yaml", "straße: ß")
    app.write("conf/config.yaml", "lr: 0\nname: ''")
    sweep = app.sweep("lr=1", f"name={QUOTED},b", "+size='weiß'", worker, to=QUOTED, program=["prüfung.py"])
    sweep.directory = app.folder / STRANGE
    told = {"lr": 1, "size": {"straße": "ß"}}
    assert values(sweep) == [["__main__", {**told, "name": name}, "prüfung", worker] for name in (STRANGE, "b")]
