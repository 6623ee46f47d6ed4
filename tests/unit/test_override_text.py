"""Values on their way through YAML and Hydra's override grammar arrive as they were written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsm_core.override_text import axis, key_and_value, literal, quote, unquote
from hsm_core.sweep_file import SweepFile, command_line
from hsm_core.yaml_lines import read_yaml

awkward = st.text(alphabet="ab'\"\\${},:= \t\n[]()~+-.0eé")
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | awkward
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(awkward | st.integers(), inner, max_size=3),
    max_leaves=8,
)
parser = OverridesParser.create()


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types, and NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) and same(a[x], b[y]) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def quoted(value: Any) -> str | None:
    """The value's text; None where the grammar has none for a key in it."""
    try:
        return quote(value)
    except ValueError:
        return None


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    text = quoted(value)
    if text is not None:
        assert same(parser.parse_override(f"key={text}").value(), value)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=2, max_size=4))
def test_each_value_of_an_axis_arrives_as_it_was(axis_values: list[Any]) -> None:
    if all(quoted(value) is not None for value in axis_values):
        swept = parser.parse_override(axis("key", axis_values))
        arrived = [parser.parse_override(f"key={text}").value() for text in swept.sweep_string_iterator()]
        assert same(arrived, axis_values)


@settings(max_examples=200, deadline=None)
@given(awkward | st.text())
def test_literal_text_outlives_the_resolution(text: str) -> None:
    try:
        OmegaConf.create([text])
    except OmegaConfBaseException:
        return  # no config of Hydra's can hold such a text
    assert OmegaConf.create([literal(text)])[0] == text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text() | awkward | st.just("${x}"), min_size=1))
def test_paired_values_with_interpolations_are_none_for_the_sweeper(texts: list[str]) -> None:
    line = command_line(SweepFile(Path("s.yaml"), "t.py", paired=({"p": texts},)), ["python"], "d")
    (override,) = [part for part in line if part.startswith("hydra.sweeper.paired=")]
    arrived: Any = parser.parse_override(override).value()
    assert ("${" in override) is False
    assert (json.loads(arrived) if isinstance(arrived, str) else arrived) == [{"p": texts}]


@given(st.text() | awkward)
def test_a_quoted_text_is_read_back(text: str) -> None:
    assert unquote(quote(text)) == text


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("lr=0.1", "lr", "0.1"),
        ("++a.b='c=d'", "a.b", "c=d"),
        ("model@x=mlp", "model@x", "mlp"),
        ("~x", "~x", ""),
        ("a=", "a", ""),
        ("a='", "a", "'"),
    ],
)
def test_key_and_value(override: str, key: str, value: str) -> None:
    assert key_and_value(override) == (key, value)


def test_what_has_no_text_is_refused() -> None:
    for value in ({1, 2}, b"x", {"it's": 1}, {"1": 1}, {"true": 1}, {"": 1}):
        with pytest.raises(ValueError, match="can't be written as a Hydra override"):
            quote(value)


SCALARS = [
    "1",
    "-1",
    "1_000",
    "0x1f",
    "0b11",
    "017",
    "1e3",
    "1e-3",
    "-1.5E+2",
    "1.",
    ".5",
    "1.e2",
    ".5e3",
    ".5e+3",
    "1_0.5",
    "0_.",
    ".5_",
    "_1",
    "1__0",
    "1e",
    "+1e2",
    ".inf",
    "-.Inf",
    ".INF",
    ".nan",
    "inf",
    "12:30",
    "1:30.5",
    "190:20:30",
    "2020-01-01",
    "2020-01-01T10:00:00",
    "yes",
    "No",
    "on",
    "OFF",
    "true",
    "TRUE",
    "tRue",
    "y",
    "n",
    "null",
    "~",
    "Null",
    "1.2.3",
    "0o17",
    "ab",
    "+",
]


@given(st.sampled_from(SCALARS) | st.text(alphabet="0123456789_+-.eE:xinfNaN", min_size=1))
def test_yaml_means_what_it_means_to_hydra(scalar: str) -> None:
    text = f"key: {scalar}"
    try:
        meant = OmegaConf.to_container(OmegaConf.create(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        return  # nothing that Hydra could read
    assert same(read_yaml(text).data, meant)
