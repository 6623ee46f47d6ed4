"""What makes `run_job` cheaper gives what OmegaConf and Hydra give; here, so that both lines of Hydra are asked."""

from __future__ import annotations

import copy
import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.conf import HydraConf
from hydra.core import utils
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, DictConfig, OmegaConf, read_write

from hsm_core.remote.clone import clone
from hsm_core.remote.lean import make_lean
from hsm_core.remote.yaml_text import YamlTexts

EXAMPLES = int(os.environ.get("HSM_EXAMPLES", "60"))


class Color(enum.Enum):
    RED = 1


@dataclass
class Inner:
    a: int = 1
    b: float | None = None
    c: str = MISSING
    union: int | str = 3


@dataclass
class Typed:
    inner: Inner = field(default_factory=Inner)
    color: Color = Color.RED
    path: Path = Path("x/y")
    raw: bytes = b"\0\1"
    table: dict[str, int] = field(default_factory=lambda: {"k": 1})
    rows: list[Inner] = field(default_factory=lambda: [Inner()])
    other: Any = "${inner.a}"


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(["${a}", "???", "on"])
)
keys = st.one_of(st.text(max_size=12), st.sampled_from(["a", "y", "1", "null", "x" * 200, "- a", "? q"]))
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=25,
)
configs = st.dictionaries(keys, trees, max_size=6)


def made(content: Any) -> DictConfig | None:
    """A configuration with this content; None where OmegaConf wants none (a broken interpolation, a bad key)."""
    try:
        config: DictConfig = OmegaConf.create(content, flags={"allow_objects": True})
    except Exception:  # whatever it raises: what can't be made needs no copy
        return None
    return config


def laid_bare(node: Any, parent: Any = None) -> Any:
    """Everything a node holds, as plain objects; whether its parent is the right one among it."""
    fields = dict(node.__dict__)
    content = fields.pop("_content", None)
    metadata = fields.pop("_metadata")
    own = fields.pop("_parent")
    fields.pop("_flags_cache")
    if isinstance(content, dict):
        content = [(key, laid_bare(value, node)) for key, value in content.items()]
    elif isinstance(content, list):
        content = [laid_bare(value, node) for value in content]
    elif hasattr(content, "__dict__"):
        content = laid_bare(content, node)
    told = {key: repr(value) for key, value in metadata.__dict__.items()}
    return type(node), type(metadata), told, repr(fields), repr(content), parent is None or own is parent


@given(configs)
@settings(deadline=None, max_examples=EXAMPLES)
def test_copies_of_any_configuration(content: Any) -> None:
    config = made(content)
    if config is not None:
        assert laid_bare(clone(config)) == laid_bare(copy.deepcopy(config))


def test_copies_of_typed_configurations() -> None:
    config = OmegaConf.structured(Typed)
    OmegaConf.set_struct(config.inner, False)
    OmegaConf.set_readonly(config.rows, True)
    assert config.other == 1
    for node in (config, config.inner, config.rows, config.rows[0]):
        assert laid_bare(clone(node)) == laid_bare(copy.deepcopy(node))
        assert clone(node)._get_parent() is node._get_parent()


def test_a_changed_copy_leaves_the_original_alone() -> None:
    setup_globals()
    config = OmegaConf.create({"a": {"b": [1, {"c": 2}]}, "stamp": "${now:%f}"})
    assert config.stamp == clone(config).stamp, "the cache of resolvers is part of a configuration"
    other = clone(config)
    other.a.b[1].c = 3
    OmegaConf.set_readonly(other.a, True)
    assert config.a.b[1].c == 2
    assert not OmegaConf.is_readonly(config.a)


@given(st.lists(configs, min_size=1, max_size=3))
@settings(deadline=None, max_examples=EXAMPLES)
def test_texts_of_any_configurations(contents: list[Any]) -> None:
    texts = YamlTexts()
    for content in [*contents, *contents]:
        config = made(content)
        if config is not None:
            assert texts.text(config) == OmegaConf.to_yaml(config)


@pytest.mark.parametrize(
    "pair",
    [(1, True), (1, 1.0), ("1", 1), (0.0, -0.0), (None, "null"), (float("nan"), "nan"), ({}, []), ("a: b", {"a": "b"})],
)
def test_texts_of_values_that_look_alike(pair: tuple[Any, Any]) -> None:
    texts = YamlTexts()
    for value in pair:
        config = OmegaConf.create({"a": {"b": {"c": value, "d": [value]}}})
        assert texts.text(config) == OmegaConf.to_yaml(config)


def test_texts_of_typed_configurations() -> None:
    config = OmegaConf.create({"typed": OmegaConf.structured(Typed), "paths": [Path("a"), Path("a")], Color.RED: 1})
    assert YamlTexts().text(config) == OmegaConf.to_yaml(config)
    assert YamlTexts().text(config.typed.table) == OmegaConf.to_yaml(config.typed.table)
    assert YamlTexts().text(config.paths) == OmegaConf.to_yaml(config.paths)


def job_config(folder: Path, name: str) -> DictConfig:
    config = OmegaConf.create(
        {"lr": 0.1, "model": {"size": 3, "name": "${hydra:job.name}"}, "hydra": OmegaConf.structured(HydraConf)}
    )
    with read_write(config):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(folder), name
        config.hydra.job.name, config.hydra.job.num, config.hydra.job.id = "app", 0, "0"
        config.hydra.job.chdir = False
        config.hydra.job.env_set = {"HSM_TEST_NAME": "${hydra.job.name}"}
        config.hydra.job_logging = {"version": 1, "root": {"level": "INFO"}}
        config.hydra.overrides.task = ["lr=0.1", "model.size=3"]
        config.hydra.runtime.cwd = str(folder)
    return config


class Noted:
    """A callback which keeps what it gets."""

    def __init__(self) -> None:
        self.job_return: Any = None

    def on_job_start(self, config: Any, **kwargs: Any) -> None: ...

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        self.job_return = job_return


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra's own parts after the test, whatever it made of them."""
    for owner, name in ((utils, "copy"), (utils, "_save_config"), (HydraConfig, "set_config")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    before = HydraConfig.instance().cfg
    setup_globals()
    yield
    HydraConfig.instance().cfg = before


@pytest.mark.usefixtures("restored")
def test_run_job_does_the_same(tmp_path: Path) -> None:
    def run(name: str) -> tuple[Any, Any, dict[str, str]]:
        from hydra._internal.callbacks import Callbacks

        callbacks = Callbacks()
        callbacks.callbacks = [noted := Noted()]
        seen: dict[str, Any] = {}

        def function(cfg: Any) -> float:
            hydra_node: Any = HydraConfig.get()
            seen.update(
                cfg=laid_bare(cfg),
                hydra=OmegaConf.to_yaml(hydra_node),
                root=HydraConfig.instance().cfg is not None,
                name=cfg.model.name,
                set=os.environ["HSM_TEST_NAME"],
                readonly=OmegaConf.is_readonly(hydra_node),
            )
            return 2 * float(cfg.lr)

        context = HydraContext(config_loader=None, callbacks=callbacks)  # type: ignore[arg-type]
        run_job(function, job_config(tmp_path, "task"), "hydra.sweep.dir", "hydra.sweep.subdir", context)
        told = noted.job_return
        files = {p.name: p.read_text() for p in (tmp_path / "task" / ".hydra").iterdir()}
        facts = [laid_bare(told.cfg), OmegaConf.to_yaml(told.hydra_cfg), told.overrides, told.return_value, told.status]
        return seen, facts, files

    by_hydra = run("hydra")
    make_lean(YamlTexts())
    assert utils.copy.deepcopy is clone  # type: ignore[attr-defined]
    assert run("lean") == by_hydra
    assert run("again") == by_hydra
