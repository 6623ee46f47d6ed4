"""The composer gives what Hydra gives, for overrides of every kind; here, so that both lines of Hydra are asked."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hsm_core.remote import yaml_text
from hsm_core.remote.app import App
from hsm_core.remote.compose import Composer
from hsm_core.remote.plain_override import parse_overrides
from hsm_core.remote.yaml_text import YamlTexts

FILES = {
    "config.yaml": """
        defaults:
          - db: mysql
          - opt/inner: x
          - extra@here.there: e
          - optional nothing: there
          - _self_
          - late: one
        lr: 0.1
        name: run
        flag: null
        items: [1, 2, 3]
        nested: {a: 1, b: {c: two, d: "${lr}"}}
        copy: ${db.port}
        stamp: ${now:%f}
        hydra:
          job:
            env_copy: [HOME]
            config: {override_dirname: {kv_sep: ":", exclude_keys: [lr]}}
          sweep: {subdir: "${hydra.job.num}_${name}"}
    """,
    "db/mysql.yaml": "port: 1\nuser: root\n",
    "db/postgres.yaml": "port: 2\nuser: pg\ntimeout: ${lr}\n",
    "opt/inner/x.yaml": "v: 1\n",
    "opt/inner/y.yaml": "# @package _global_\nv: 2\n",
    "extra/e.yaml": "w: 1\n",
    "extra/f.yaml": "defaults: [e]\nw: 2\n",
    "late/one.yaml": "# @package _global_\nlr: 0.5\n",
    "late/two.yaml": "# @package _global_\nname: late\n",
    "more/m.yaml": "z: 1\n",
}
ERRORS = (HydraException, OmegaConfBaseException, ValueError)
HYDRA = ["hydra.sweep.dir=out", "hydra.job.name=given", "hydra.mode=MULTIRUN"]
VALUES = [
    "lr=3", "lr=1e-3", "lr=null", "lr='text'", "name=x", "name='a,b'", "flag=true", "flag={k:1}", "items=[]",
    "items=[4,[5]]", "nested.a=7", "nested.b.c=d", "nested.b={c:1}", "nested={a:2}", "nested.b.d=${name}",
    "db.port=9", "db.user='ü b'", "copy=1", "+new=1", "+new.deep.er=[1,{a:b}]", "+nested.a=9", "++lr=4",
    "++brand.new=1", "+nested.b.e=x", "items.1=8", "here.there.w=5", "opt.inner.v=6", "v=3", "stamp=s",
]  # fmt: skip
CHOICES = ["db=mysql", "db=postgres", "opt/inner=y", "late=two", "+more=m", "extra@here.there=f", "db=null"]
OTHERS = [
    "~lr", "~nested.b", "~name=run", "~db", "~late=one", "+more@elsewhere=m", "hydra.job.chdir=true",
    "hydra.job.env_set.A=1", "hydra/job_logging=none", "db@other=mysql", "+db@second=postgres", "nothing=there",
]  # fmt: skip
WRONG = [
    "no.such=1", "lr.sub=1", "db=oracle", "+lr=1", "~missing", "nested.a.b=1", "+db=mysql", "lr=1,2", "name=${", "=3",
    "items.9=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Composer]]:
    """Hydra's loader, a sweep's configuration, and the composer of its tasks."""
    folder: Path = tmp_path_factory.mktemp("app")
    for name, text in FILES.items():
        path = folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        margin = min(len(line) - len(line.lstrip()) for line in lines)
        path.write_text("\n".join(line[margin:] for line in lines).rstrip() + "\n")
    (folder / "app.py").touch()
    GlobalHydra.instance().clear()
    setup_globals()
    hydra = Hydra.create_main_hydra2("app", create_automatic_config_search_path(str(folder / "app.py"), None, "conf"))
    config = hydra.config_loader.load_configuration("config", HYDRA, RunMode.MULTIRUN)
    # Resolved once, a time is the same in all tasks of the sweep; Hydra hands the cache on.
    assert config.stamp
    yield hydra.config_loader, config, Composer(hydra.config_loader, config)
    GlobalHydra.instance().clear()


def by_hydra(loader: Any, config: Any, overrides: list[str], index: int) -> Any:
    """What Hydra's basic launcher composes, or the error it meets."""
    try:
        job = loader.load_sweep_config(config, overrides)
    except ERRORS as e:
        return type(e), str(e)
    with open_dict(job):
        job.hydra.job.id = str(index)
        job.hydra.job.num = index
    return job


def by_us(composer: Composer, overrides: list[str], index: int) -> Any:
    try:
        composer.prepare(overrides)
        return composer.compose(overrides, index)
    except ERRORS as e:
        return type(e), str(e)


def told(node: Any, key: str) -> str:
    """The value of a key, resolved, or why it can't be."""
    try:
        return str(OmegaConf.select(node, key))
    except OmegaConfBaseException as e:
        return f"{type(e).__name__}: {e}"


def facts(job: Any) -> Any:
    """All that can be told of a configuration: text, order, flags, types and resolved values."""
    if isinstance(job, tuple):
        return job
    resolved = copy.deepcopy(job)
    keys = [key for key in resolved if key != "hydra"]
    return (
        OmegaConf.to_yaml(job),
        [told(resolved, key) for key in [*keys, "nested.b.d", "db.timeout", "hydra.sweep.subdir"]],
        told(resolved, "hydra.job.override_dirname"),
        [(OmegaConf.is_struct(node), OmegaConf.is_readonly(node)) for node in (job, job.hydra, job.hydra.job)],
        OmegaConf.get_type(job, "hydra"),
    )


ALL = [*VALUES, *CHOICES, *OTHERS, *WRONG]


@pytest.mark.parametrize("override", ALL)
def test_one_override(composer: tuple[Any, Any, Composer], override: str) -> None:
    loader, config, ours = composer
    assert facts(by_us(ours, [override], 3)) == facts(by_hydra(loader, config, [override], 3))


@given(st.lists(st.sampled_from([*VALUES, *VALUES, *CHOICES, *OTHERS]), max_size=5), st.integers(0, 5))
@settings(deadline=None, max_examples=int(os.environ.get("HSM_EXAMPLES", "60")))
def test_any_overrides(composer: tuple[Any, Any, Composer], overrides: list[str], index: int) -> None:
    loader, config, ours = composer
    assert facts(by_us(ours, overrides, index)) == facts(by_hydra(loader, config, overrides, index))


def test_what_is_given_away_is_as_good(composer: tuple[Any, Any, Composer]) -> None:
    loader, config, _ = composer
    once = Composer(loader, config)
    once.prepare(["lr=3", "db=postgres"])
    job = once.compose(["lr=3", "db=postgres", "+new=1"], 1, last=True)
    assert facts(job) == facts(by_hydra(loader, config, ["lr=3", "db=postgres", "+new=1"], 1))


def test_what_another_composer_learnt_is_as_good(
    composer: tuple[Any, Any, Composer], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, config, ours = composer
    learnt = pickle.loads(pickle.dumps(ours.learnt(["lr=3", "db=postgres"])))  # noqa: S301 - our own
    other = Composer(loader, config, learnt)
    wanted = [by_hydra(loader, config, ["lr=4", "db=postgres", *more], 1) for more in ([], ["+new=1"], ["nested.b=7"])]
    monkeypatch.setattr(type(loader), "load_sweep_config", lambda *_: pytest.fail("composed anew"))
    for job, more in zip(wanted, ([], ["+new=1"], ["nested.b=7"]), strict=True):
        assert facts(other.compose(["lr=4", "db=postgres", *more], 1)) == facts(job)


def test_a_process_makes_its_tasks_ready_though_another_composed_for_it(
    composer: tuple[Any, Any, Composer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts of what all tasks share are written once, in the zygote."""
    loader, config, ours = composer
    app = App(lambda cfg: None, None, Composer(loader, config, ours.learnt(["lr=3", "db=mysql"])), YamlTexts(), None)
    app.prepare(["lr=4", "db=mysql"])
    written: list[Any] = []

    def counted(part: Any) -> str:
        written.append(part)
        return ""

    monkeypatch.setattr(yaml_text, "_dump", counted)
    app.texts.text(app.composer.compose(["lr=4", "db=mysql"], 1))
    assert 0 < len(written) < 12, written


def test_nothing_is_learnt_of_what_hydra_has_to_compose_itself(composer: tuple[Any, Any, Composer]) -> None:
    loader, config, _ = composer
    assert Composer(loader, config).learnt(["~lr"])["bases"] == {}


def test_a_task_that_changes_its_configuration_changes_no_other(composer: tuple[Any, Any, Composer]) -> None:
    _, _, ours = composer
    first = ours.compose(["lr=3"], 1)
    with open_dict(first):
        first.nested.b.c = "spoilt"
        first.hydra.job.env_set.SPOILT = "1"
    assert ours.compose(["lr=3"], 1).nested.b.c == "two"
    assert "SPOILT" not in ours.compose(["lr=3"], 1).hydra.job.env_set


def test_hydra_composes_once_for_all_values(
    composer: tuple[Any, Any, Composer], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, config, _ = composer
    ours = Composer(loader, config)
    composed: list[list[str]] = []
    whole = type(loader).load_sweep_config

    def counted(self: Any, master: Any, overrides: list[str]) -> Any:
        composed.append(overrides)
        return whole(self, master, overrides)

    monkeypatch.setattr(type(loader), "load_sweep_config", counted)
    for number in range(20):
        ours.compose([f"lr={number}", "db=postgres" if number % 2 else "db=mysql"], number)
    assert composed == [["db=mysql"], ["db=postgres"]]


def by_grammar(override: str) -> Any:
    try:
        return OverridesParser.create().parse_overrides([override])
    except OverrideParseException as e:
        return str(e)


names = st.from_regex(r"[\w+~@./$-]{0,4}[a-zA-Z_][\w./@:$-]{0,6}", fullmatch=True)
values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"[+-]?[0-9_.eE+-]{1,8}", fullmatch=True),
    st.from_regex(r"[\w:/.,'\" $(){}=-]{0,8}", fullmatch=True),
    st.sampled_from(["True", "NULL", "Inf", "nan", "٣", "é", "1_000", "007", "1.", ".5", "1e5", "a-b", "x ", ""]),
)


@given(st.one_of(st.builds("{}={}".format, names, values), st.sampled_from(ALL)))
@settings(deadline=None, max_examples=int(os.environ.get("HSM_EXAMPLES", "300")))
def test_plain_overrides_need_no_grammar(override: str) -> None:
    try:
        ours: Any = parse_overrides([override])
    except OverrideParseException as e:
        ours = str(e)
    theirs = by_grammar(override)
    assert repr(ours) == repr(theirs), "repr, since 1 == 1.0 == True"


def test_which_overrides_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OverridesParser, "parse_overrides", lambda *args: pytest.fail("the grammar was asked"))
    parsed = parse_overrides(["lr=0.1", "+model.size=3", "++a=-1e-3", "db=mysql"])
    assert [override.value() for override in parsed] == [0.1, 3, -0.001, "mysql"]
