"""Jobs: the same as the basic sweeper's, in the same order, without storing them; and the paired groups beside."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hsm_core.exceptions import ConfigError
from hsm_core.grid import SAMPLES, Axis, Jobs, jobs_of
from hsm_core.override_text import quote

LOADER = ConfigLoaderImpl(create_config_search_path(None))
"""Knows Hydra's own groups, for `glob`."""


def basic(arguments: list[str], params: dict[str, Any] | None = None) -> list[list[str]]:
    """The jobs Hydra's basic sweeper would launch."""
    texts = [f"{key}={value}" for key, value in (params or {}).items()]
    overrides = OverridesParser.create(config_loader=LOADER).parse_overrides([*texts, *arguments])
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return batch


def ours(arguments: list[str], params: Any = None, paired: Any = None, limit: int | None = None) -> Jobs:
    return jobs_of(LOADER, params, paired, arguments, limit)


def axes_of(*sizes: int) -> list[Axis]:
    return [[(f"{chr(97 + n)}={i}",) for i in range(size)] for n, size in enumerate(sizes)]


# --- the basic sweeper's jobs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a=1"],
        ["a=1,2,3"],
        ["a=1,2", "b=x,y", "c=7"],
        ["a=choice(1,x,[1,2],{k:3},true)"],
        ["a=range(4)", "b=range(1,10,3)", "c=range(0,1,0.25)", "d=range(5,1,-2)"],
        ["a='x,y','z w',\"it's\"", "b='say \"hi\"',plain"],
        ["a=' leading','trailing ','',' '"],
        [r"a='\'','\\',x\ y", "b=a\\,b"],
        ["a='${b}','$x'", "b=${c},${d:e}"],
        ["+a=1,2", "++b=3,4", "+c=5"],
        ["~a", "~b=3", "c=1,2"],
        ["db=mysql,postgres", "db@backup=mysql,sqlite", "+opt/inner=x,y"],
        ["hydra.job.name=x,y", "hydra/job_logging=default,none"],
        ["hydra/job_logging=glob(*)", "a=1,2"],
        ["hydra/job_logging=glob([d*,n*],exclude=n*)"],
        ["a=1,2", "b=3", "a=4,5,6"],
        ["a=1,2", "a=9"],
        ["a=9", "b=1,2", "a=1,2"],
        ["a=1,2", "+a=3,4"],
        ["a=sort(3,1,2)", "b=sort(range(4),reverse=true)", "c=tag(t,choice(1,2))"],
        ["a=[1,2],[3,4]", "b={x:1,y:2},{x:3}", "c=[a,'b c']"],
        ["a=1e-3,0.1,1_000,inf,nan", "b=true,False,NULL"],
        ["a='ä','日本 語'", "b=/path/to,C:\\x"],
        ["a=int('3'),str(4),float(5)", "b=cast_me"],
        ["a.b.c=1,2", "a.b-c=3"],
    ],
)
def test_the_jobs_are_those_of_the_basic_sweeper(arguments: list[str]) -> None:
    assert list(ours(arguments)) == basic(arguments)


@pytest.mark.parametrize("arguments", [["a=range(1,1)", "b=1,2"], ["hydra/job_logging=glob(nothing*)"]])
def test_an_axis_without_values_is_refused(arguments: list[str]) -> None:
    assert basic(arguments) == []
    with pytest.raises(ConfigError, match=f"the grid is empty: {arguments[0].split('=')[0]} has no values"):
        ours(arguments)


def test_shuffled_values_are_all_there() -> None:
    jobs = ours(["a=shuffle(range(9))", "b=1,2"])
    assert sorted(map(list, jobs)) == sorted(basic(["a=shuffle(range(9))", "b=1,2"]))


names = st.sampled_from(["a", "b", "c.d", "db", "db@x", "+a", "++b", "~c"])
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\n"), max_size=6)
values = st.one_of(
    st.integers(-99, 99).map(str),
    st.floats(allow_nan=True).map(repr),
    st.sampled_from(["null", "true", "x", "a/b", "[1,2]", "{k: v}", "${x}", "x\\,y", "a b", "''"]),
    text.map(quote),
    st.lists(text, max_size=2).map(quote),
)
small = st.integers(-3, 4)
sweeps = st.one_of(
    values,
    st.lists(values, min_size=2, max_size=4).map(",".join),
    st.lists(values, min_size=1, max_size=4).map(lambda some: f"choice({','.join(some)})"),
    st.tuples(small, small, st.sampled_from([1, 2, -1, 0.5])).map(lambda r: f"range({r[0]},{r[1]},{r[2]})"),
    st.lists(small, min_size=1, max_size=4).map(lambda some: f"sort({','.join(map(str, some))})"),
)
arguments_of_any_kind = st.lists(st.tuples(names, sweeps).map("=".join), max_size=5)


@given(arguments_of_any_kind, st.dictionaries(names, sweeps, max_size=2))
@settings(deadline=None, max_examples=300)
def test_any_overrides_give_the_jobs_of_the_basic_sweeper(arguments: list[str], params: dict[str, str]) -> None:
    try:
        expected = basic(arguments, params)
    except HydraException as e:
        wrong: HydraException | None = e
    else:
        wrong = None
    if wrong is not None:
        with pytest.raises(type(wrong), match=re.escape(str(wrong))):
            ours(arguments, params)
        return
    if not expected:
        with pytest.raises(ConfigError, match="the grid is empty"):
            ours(arguments, params)
        return
    jobs = ours(arguments, params)
    assert list(jobs) == expected
    assert len(jobs) == len(expected)


def test_params_come_first_and_are_overridden_in_their_place() -> None:
    params = {"lr": "0.1,0.2", "seed": "range(2)", "n": 3}
    assert list(ours(["lr=5,6", "x=1"], OmegaConf.create(params))) == basic(["lr=5,6", "x=1"], params)
    assert ours(["lr=5,6"], params)[0] == ["lr=5", "seed=0", "n=3"]


def test_what_can_not_be_enumerated_is_refused() -> None:
    with pytest.raises(HydraException, match="HsmSweeper does not support sweep type : INTERVAL"):
        ours(["a=interval(0,1)"])


def test_errors_of_the_grammar_are_hydras_own() -> None:
    with pytest.raises(OverrideParseException, match="Error parsing override 'a=,'"):
        ours(["a=,"])


# --- a sequence that stores nothing ----------------------------------------------------------------


@given(st.lists(st.integers(0, 5), max_size=4), st.none() | st.integers(1, 100), st.data())
@settings(deadline=None)
def test_jobs_are_a_sequence(sizes: list[int], limit: int | None, data: st.DataObject) -> None:
    jobs = Jobs(axes_of(*sizes), limit)
    expected = [[f"{chr(97 + n)}={i}" for n, i in enumerate(point)] for point in itertools.product(*map(range, sizes))][
        :limit
    ]
    assert list(jobs) == expected
    assert len(jobs) == len(expected)
    assert list(reversed(jobs)) == expected[::-1]
    bounds = st.none() | st.integers(-130, 130)
    part = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, -1, -3])))
    assert jobs[part] == expected[part]
    for index in range(-len(expected), len(expected)):
        assert jobs[index] == expected[index]
    for index in (len(expected), -len(expected) - 1, 10**6):
        with pytest.raises(IndexError):
            jobs[index]


def test_a_thousand_million_jobs_cost_nothing() -> None:
    jobs = ours([f"{key}=range(1000)" for key in "abc"])
    assert len(jobs) == 10**9
    assert jobs[123_456_789] == ["a=123", "b=456", "c=789"]
    assert jobs[-1] == ["a=999", "b=999", "c=999"]
    assert jobs[10**9 - 2 :: 2] == [["a=999", "b=999", "c=998"]]
    assert len(jobs.samples()) == SAMPLES


def test_more_jobs_than_a_sequence_can_have() -> None:
    keys = [f"k{n}=range(1000)" for n in range(150)]
    with pytest.raises(ConfigError, match=r"10\^450 jobs.*max_runs"):
        ours(keys)
    jobs = ours(keys, limit=10)
    assert (len(jobs), jobs[9][-1]) == (10, "k149=9")
    assert 1000**6 < sys.maxsize < 1000**7


def test_max_runs_keeps_the_first_jobs() -> None:
    assert list(ours(["a=1,2,3", "b=1,2"], limit=4)) == basic(["a=1,2,3", "b=1,2"])[:4]
    assert len(ours(["a=1,2,3"], limit=99)) == 3


@pytest.mark.parametrize("limit", [0, -1])
def test_max_runs_below_one(limit: int) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.max_runs: must be 1 or more"):
        ours(["a=1,2"], limit=limit)


# --- samples ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=4), st.none() | st.integers(1, 300))
@settings(deadline=None)
def test_samples_are_a_few_of_the_jobs(sizes: list[int], limit: int | None) -> None:
    jobs = Jobs(axes_of(*sizes), limit)
    samples = jobs.samples()
    assert len(samples) <= SAMPLES
    numbers = [jobs.index(job) for job in samples]
    assert numbers == sorted(set(numbers))
    assert bool(samples) == bool(len(jobs))
    if limit is None and jobs and sum(sizes) - len(sizes) < SAMPLES:
        assert {text for job in samples for text in job} == {text for axis in axes_of(*sizes) for (text,) in axis}


def test_a_long_axis_does_not_hide_a_short_one_from_the_samples() -> None:
    samples = ours(["model=mlp,cnn,typo", "lr=range(1000)", "opt=sgd,adam"]).samples()
    assert len(samples) == SAMPLES
    assert {"model=mlp", "model=cnn", "model=typo", "opt=sgd", "opt=adam"} <= {text for job in samples for text in job}


def test_samples_of_few_jobs_are_all_that_will_run() -> None:
    jobs = ours(["a=range(50)", "b=range(50)"], limit=3)
    assert jobs.samples() == list(jobs)


# --- paired groups ---------------------------------------------------------------------------------


def test_paired_lists_go_in_step() -> None:
    groups = [{"width": [64, 128], "depth": [2, 4]}, {"+name": ["a, b", None, "it's"]}]
    for paired in (groups, OmegaConf.create(groups)):
        jobs = ours(["lr=1,2"], paired=paired)
        assert len(jobs) == 2 * 2 * 3
        assert jobs[0] == ["lr=1", "width=64", "depth=2", "+name='a, b'"]
        assert jobs[-1] == ["lr=2", "width=128", "depth=4", r"+name='it\'s'"]
        assert {(job[1], job[2]) for job in jobs} == {("width=64", "depth=2"), ("width=128", "depth=4")}


@pytest.mark.parametrize("make", [lambda groups: groups, OmegaConf.create, json.dumps], ids=["plain", "node", "JSON"])
def test_interpolations_in_paired_lists_are_left_to_the_tasks(make: Callable[[Any], Any]) -> None:
    jobs = ours([], paired=make([{"a": ["${b}", "${oc.env:HOME}"]}]))
    assert list(jobs) == [["a='${b}'"], ["a='${oc.env:HOME}'"]]


@given(st.lists(st.lists(st.none() | st.booleans() | st.integers() | text, min_size=2, max_size=2), min_size=1))
@settings(deadline=None, max_examples=60)
def test_paired_values_arrive_as_they_were_written(rows: list[list[Any]]) -> None:
    jobs = ours([], paired=[{"a": [row[0] for row in rows], "b": [row[1] for row in rows]}])
    parser = OverridesParser.create(config_loader=LOADER)
    told = [[parsed.value() for parsed in parser.parse_overrides(list(job))] for job in jobs]
    assert [[getattr(value, "text", value) for value in row] for row in told] == rows


@pytest.mark.parametrize("nothing", [None, [], OmegaConf.create([]), ""])
def test_no_groups(nothing: Any) -> None:
    assert list(ours(["a=1,2"], paired=nothing)) == [["a=1"], ["a=2"]]


@pytest.mark.parametrize(
    ("paired", "words"),
    [
        ([{"a": [1, 2], "b": [1]}], "hydra.sweeper.paired[0]: the lists must have one length, at least 1: a has 2, b"),
        ([{"a": [1]}, {"b": []}], "hydra.sweeper.paired[1]: the lists must have one length, at least 1: b has 0"),
        ([{}], "hydra.sweeper.paired[0]: the lists must have one length, at least 1: it is empty"),
        ([{"a": 1}], "hydra.sweeper.paired[0]: expected a mapping of keys to lists, got {'a': 1}"),
        (["a"], "hydra.sweeper.paired[0]: expected a mapping of keys to lists, got 'a'"),
        ([{1: [2]}], "hydra.sweeper.paired[0]: expected a mapping of keys to lists, got {1: [2]}"),
        ([{"lr": [1]}], "hydra.sweeper.paired[0].lr: this key is swept twice"),
        ([{"+lr": [1]}], "hydra.sweeper.paired[0].+lr: this key is swept twice"),
        ([{"a": [1]}, {"b": [1], "a": [2]}], "hydra.sweeper.paired[1].a: this key is swept twice"),
        ([{"a": [{"x\ny": 1}]}], "hydra.sweeper.paired[0]: 'x\\ny' as a key of a dict value can't be written"),
        ({"a": [1]}, "hydra.sweeper.paired: expected a list of groups, got {'a': [1]}"),
        ("half a js", "hydra.sweeper.paired: expected a list of groups, got 'half a js'"),
        (7, "hydra.sweeper.paired: expected a list of groups, got 7"),
    ],
)
def test_bad_groups_are_told_with_their_place(paired: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ours(["lr=1,2"], paired=paired)
    (problem,) = caught.value.problems
    assert problem.startswith(words)


def test_all_bad_groups_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ours(["lr=1"], paired=[{"a": 1}, {"b": [1]}, {"lr": [1], "b": [2]}])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "hydra.sweeper.paired[0]",
        "hydra.sweeper.paired[2].lr",
        "hydra.sweeper.paired[2].b",
    ]
