"""What tasks ask for by their composed configuration: as a worker composes it, and only where that can matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hsm_core.grid import Jobs
from hsm_core.remote.compose import Composer
from hsm_core.sources.hpc.needs import Needs
from hsm_core.sources.hpc.own_words import own_words, wrong_early
from hsm_core.sources.hpc.resources import Resources, parse
from hsm_core.task import Attempt, Cause, Task
from tests.hydra_suite.test_frozen_composer import FrozenApp, freeze_app

FILES = {
    "config.yaml": "defaults: [_self_, {size: SIZE}]\nx: 1\nroom: 2GB\n",
    "size/small.yaml": "n: 1\n",
    "size/own.yaml": "# @package _global_\nhsm: {emission: gauss, states: '${nowhere}'}\n",
    "size/plain.yaml": "# @package _global_\nhsm: 5\n",
    "size/large.yaml": "# @package _global_\nhsm: {resources: {mem: '${room}', cpus: 2}}\n",
    "size/text.yaml": "# @package _global_\nhsm: {resources: 'mem=${room}:gpus=1', walltime: 1h}\n",
    "size/named.yaml": "# @package hsm.resources\nconstraint: ${hydra:runtime.choices.size}\n",
    "size/lost.yaml": "# @package hsm.resources\nmem: ${nowhere}\n",
    "size/missing.yaml": "# @package hsm.resources\nmem: ???\n",
    "size/wrong.yaml": "# @package hsm.resources\nmmem: 4GB\n",
    "size/share.yaml": "# @package hsm.resources\nmem_per_gpu: 4GB\n",
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FrozenApp]:
    yield make(tmp_path, "small")
    GlobalHydra.instance().clear()


def make(folder: Path, size: str) -> FrozenApp:
    """An app whose sweep is about to begin, with this `size` unless a job chooses another."""
    return freeze_app(folder, {name: text.replace("SIZE", size) for name, text in FILES.items()})


def needs_of(app: FrozenApp, defaults: str = "nodes=1", system: str = "slurm") -> Needs:
    return Needs(parse(defaults), system, app.payload)


def attempt(*overrides: str, index: int = 0, memory: float | None = None, needs: float | None = None) -> Attempt:
    return Attempt(Task(index, overrides, f"key{index}"), 1, 1, "cluster", memory=memory, needs=needs)


def asked(needs: Needs, *attempts: Attempt) -> list[Resources]:
    assert list(needs.work_out(attempts, 60.0)) == []
    return [needs.of(one) for one in attempts]


# --- what is composed -----------------------------------------------------------------------------


def test_nothing_is_composed_where_that_can_not_matter(app: FrozenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[Sequence[str]] = []

    def compose(self: Composer, overrides: Sequence[str], index: int) -> object:
        composed.append(overrides)
        return OmegaConf.create()

    monkeypatch.setattr(Composer, "compose", compose)
    asked(needs_of(app), attempt("x=1"), attempt("x=2", "size=small"), attempt("+hsmx.resources=1"))
    assert composed == []
    asked(needs_of(app), attempt("size=large"), attempt("+hsm.resources.mem=1GB"), attempt("~x"))
    assert composed == [("size=large",), ("+hsm.resources.mem=1GB",), ("~x",)]


# --- what they ask for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "resources"),
    [
        (["size=large"], "nodes=1:mem=2GB:cpus=2"),
        (["size=large", "room=64GB"], "nodes=1:mem=64GB:cpus=2"),
        (["size=large", "hsm.resources.cpus=8", "+hsm.resources.nodes=2"], "nodes=2:mem=2GB:cpus=8"),
        (["+hsm.resources.mem=64GB"], "nodes=1:mem=64GB"),
        (["+hsm.resources='mem=64GB:gpus=a100:1'"], "nodes=1:mem=64GB:gpus=a100:1"),
        (["+hsm.resources.gpus=2", "+hsm.walltime=12:00:00"], "nodes=1:gpus=2:walltime=12:00:00"),
        (["size=text"], "nodes=1:mem=2GB:gpus=1:walltime=1h"),
        (["size=named"], "nodes=1:constraint=named"),
        (["size=own"], "nodes=1"),
        (["size=plain"], "nodes=1"),
        (["size=large", "~hsm"], "nodes=1"),
    ],
)
def test_a_tasks_own_words(app: FrozenApp, overrides: list[str], resources: str) -> None:
    before = HydraConfig.instance().cfg
    assert asked(needs_of(app), attempt(*overrides)) == [parse(resources)]
    assert HydraConfig.instance().cfg is before


def test_those_of_the_sweep_are_those_of_every_task(tmp_path: Path) -> None:
    app = make(tmp_path, "large")
    assert asked(needs_of(app), attempt("x=3"), attempt("room=1GB", index=1)) == [
        parse("nodes=1:mem=2GB:cpus=2"),
        parse("nodes=1:mem=1GB:cpus=2"),
    ]


def test_memory_of_an_own_kind_may_lean_on_the_defaults(app: FrozenApp) -> None:
    assert asked(needs_of(app, "gpus=2"), attempt("size=share")) == [parse("gpus=2:mem_per_gpu=4GB")]


@pytest.mark.parametrize(
    ("overrides", "cause", "words"),
    [
        (["size=wrong"], Cause.ERROR, "hsm.resources: mmem: there is no resource 'mmem'; did you mean mem?"),
        (["size=share"], Cause.ERROR, "hsm.resources: mem_per_gpu: 'mem_per_gpu' needs gpus"),
        (["size=lost"], Cause.ERROR, "hsm.resources.mem: Interpolation key 'nowhere' not found"),
        (["size=missing"], Cause.ERROR, "hsm.resources.mem: Missing mandatory value: mem"),
        (["+hsm.resorces.mem=4GB"], Cause.ERROR, "hsm.resorces is nothing that hsm knows; did you mean resources?"),
        (["+hsm.resources.extra.j=oe"], Cause.ERROR, "hsm.resources: extra: j: is given by hsm itself"),
        (["+hsm.resources.extra.l='a=1'"], Cause.REJECTED, "cluster: extra: 'l' is an option of PBS; Slurm's go by"),
        (["size=huge"], Cause.ERROR, "MissingConfigException: "),
    ],
)
def test_who_asks_for_what_can_not_be(app: FrozenApp, overrides: list[str], cause: Cause, words: str) -> None:
    """They end; the others are worked out all the same."""
    needs, bad, good = needs_of(app), attempt(*overrides), attempt("size=large", index=1)
    ((ended, outcome),) = needs.work_out([bad, good], 60.0)
    assert (ended, outcome.cause) == (bad, cause)
    assert outcome.message.startswith(words)
    assert needs.unknown([bad, good]) == [bad]
    assert needs.of(good).cpus == 2


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defaults", "memory", "needs", "resources"),
    [
        ("nodes=1", 4096.0, None, "nodes=1:mem=4GB"),
        ("mem=1GB", 4096.0, None, "mem=1GB"),
        ("mem_per_cpu=1GB:cpus=2", 4096.0, None, "mem_per_cpu=1GB:cpus=2"),
        ("mem=1GB", None, 2048.0, "mem=2GB"),
        ("mem_per_cpu=1GB:cpus=2", None, 4096.0, "mem=4GB:cpus=2"),
        ("mem=8GB", None, 2048.0, "mem=8GB"),
        ("nodes=1", 8192.0, 2048.0, "nodes=1:mem=8GB"),
        ("nodes=1", None, 2048.0, "nodes=1:mem=2GB"),
    ],
)
def test_memory(app: FrozenApp, defaults: str, memory: float | None, needs: float | None, resources: str) -> None:
    """A task's limit counts where nobody asks for memory; what is known to be needed, where that is more."""
    assert asked(needs_of(app, defaults), attempt(memory=memory, needs=needs)) == [parse(resources)]


# --- arrays ---------------------------------------------------------------------------------------


def test_those_that_ask_for_the_same_go_out_together(app: FrozenApp) -> None:
    needs = needs_of(app)
    sizes = ["small", "large", "small", "large", "own", "large"]
    attempts = [attempt(f"size={size}", index=index) for index, size in enumerate(sizes)]
    asked(needs, *attempts)
    large = [attempts[1], attempts[3], attempts[5]]
    assert needs.groups(attempts) == [[attempts[0], attempts[2], attempts[4]], large]
    assert needs.groups([]) == []


def test_a_few_at_a_time(app: FrozenApp) -> None:
    """Composing may take long, while the source has others to hear of."""
    needs, attempts = needs_of(app), [attempt(index=index) for index in range(3)]
    assert list(needs.work_out(attempts, 0.0)) == []
    assert needs.unknown(attempts) == attempts[1:]
    assert needs.unknown(attempts[1:]) == attempts[1:]
    assert needs.unknown(attempts) == attempts, "what nobody waits for is forgotten"


# --- before anything starts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "problems"),
    [
        ([["x=1"], ["+hsm.resources.mem=1GB"]], []),
        (
            [["+hsm.resources.mem=1GB"], ["+hsm.resources.mem=8GBB", "x=2"], ["x=3", "+hsm.resources.mem=8GBB"]],
            ["+hsm.resources.mem=8GBB: hsm.resources: mem: the text '8GBB' is no size"],
        ),
        (
            Jobs([[("+hsm.resources.mem=1GB",), ("+hsm.resources.mmem=1",)], [(f"x={i}",) for i in range(100)]]),
            ["+hsm.resources.mmem=1: hsm.resources: mmem: there is no resource 'mmem'; did you mean mem?"],
        ),
        ([["+hsm.resources.mem_per_gpu=4GB"]], []),  # GPUs may come with a group
        ([["size=large", "hsm.resources.mem=4"]], []),  # so may `hsm`
        ([["size=wrong"]], []),  # fails that task
        ([["+hsm.resources.mem=${nowhere}"]], []),
    ],
)
def test_overrides_of_jobs(app: FrozenApp, jobs: Sequence[Sequence[str]], problems: list[str]) -> None:
    found = wrong_early(app.multirun, jobs)
    assert len(found) == len(problems)
    assert all(one.startswith(words) for one, words in zip(found, problems, strict=True)), found


def test_a_configuration_that_no_job_mends(tmp_path: Path) -> None:
    multirun = make(tmp_path, "wrong").multirun
    words = "hsm.resources: mmem: there is no resource 'mmem'; did you mean mem?"
    assert wrong_early(multirun, [["x=1"], ["x=2"]]) == [words]
    assert wrong_early(multirun, [["~hsm.resources.mmem"]]) == []
    assert wrong_early(multirun, [["hsm.resources.mmem=1"]]) == [f"hsm.resources.mmem=1: {words}"]
    assert wrong_early(make(tmp_path / "other", "missing").multirun, [["x=1"]]) == []


def test_words_that_nobody_said(app: FrozenApp) -> None:
    assert own_words(OmegaConf.create({"hydra": {}, "x": 1})) is None
    assert own_words(OmegaConf.create({"hsm": None})) is None
