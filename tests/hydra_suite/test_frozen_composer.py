"""The launcher composes from what it froze, as its workers do; here, so that both lines of Hydra are asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

from hsm_core import payload
from hsm_core.frozen_composer import frozen_composer
from hsm_core.multirun import Multirun
from hsm_core.remote.compose import Composer

FILES = {
    "config.yaml": "defaults: [_self_, {size: small}, {'/more@under.here': m}]\nx: 1\nroom: 2GB\n",
    "size/small.yaml": "n: 1\n",
    "size/large.yaml": "# @package _global_\nhsm: {resources: {mem: '${room}', cpus: 2}}\n",
    "more/m.yaml": "z: 1\n",
}


@dataclass(frozen=True)
class FrozenApp:
    """An app whose sweep is about to begin."""

    conf: Path
    """its configuration files"""
    payload: Path
    multirun: Multirun


def freeze_app(folder: Path, files: Mapping[str, str]) -> FrozenApp:
    """Make an app with these configuration files, and what its tasks are to read."""
    conf, script = folder / "app" / "conf", folder / "app" / "app.py"
    for name, text in files.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)
    script.touch()
    GlobalHydra.instance().clear()
    setup_globals()
    hydra = Hydra.create_main_hydra2("app", create_automatic_config_search_path(str(script), None, "conf"))
    config = hydra.config_loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    multirun = Multirun.of(config, HydraContext(hydra.config_loader, Callbacks(config)), lambda cfg: None)
    entry = {"kind": "script", "path": str(script), "argv0": str(script), "args": [], "cwd": os.getcwd()}
    entry["function"] = "__main__:main"
    snapshot = payload.freeze(folder / "snapshot", config, entry)
    payload.write(folder / "payload", snapshot, multirun, (), entry)
    return FrozenApp(conf, folder / "payload", multirun)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FrozenApp]:
    yield freeze_app(tmp_path, FILES)
    GlobalHydra.instance().clear()


def text_of(job: Any) -> str:
    """The whole of a configuration but for where its loader reads, which is elsewhere for another loader."""
    with open_dict(job):
        del job.hydra.runtime
    return OmegaConf.to_yaml(job)


@pytest.mark.parametrize("overrides", [["x=2"], ["size=large", "room=3GB"], ["size=large", "~x"], ["+new=1"], []])
def test_it_composes_what_the_sweeps_own_composer_does(app: FrozenApp, overrides: list[str]) -> None:
    ours = frozen_composer(app.payload).compose(overrides, 3)
    assert text_of(ours) == text_of(app.multirun.composer.compose(overrides, 3))


def test_files_that_changed_since_then_change_nothing(app: FrozenApp) -> None:
    before = text_of(frozen_composer(app.payload).compose(["size=large"], 0))
    shutil.rmtree(app.conf / "size")
    (app.conf / "config.yaml").write_text("room: 9GB\n")
    assert text_of(frozen_composer(app.payload).compose(["size=large"], 0)) == before
    # Other loaders of this process read what is there now.
    with pytest.raises(HydraException, match="size"):
        Composer(app.multirun.context.config_loader, app.multirun.config).compose(["size=large"], 0)


@pytest.mark.parametrize(
    ("overrides", "key", "may"),
    [
        (["x=1"], "hsm", False),
        (["size=small", "+hsmx.a=1"], "hsm", False),
        (["x=1"], "under", True),
        (["size=large"], "hsm", True),
        (["+hsm.resources.mem=1"], "hsm", True),
        (["++hsm={}"], "hsm", True),
        (["~x"], "hsm", True),
    ],
)
def test_what_a_task_may_have(app: FrozenApp, overrides: list[str], key: str, may: bool) -> None:
    assert frozen_composer(app.payload).may_have(key, overrides) is may
