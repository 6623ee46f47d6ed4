"""What is noted of a configuration, and how another one differs from it."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from omegaconf import MISSING, DictConfig, OmegaConf

from hsm_core.exceptions import SweepChanged
from hsm_core.recorded_config import FILE, changed_keys, config_hash, record, refusal
from hsm_core.state import SweepState

CONFIG: dict[str, Any] = {
    "lr": 0.1,
    "model": {"width": 2, "layers": [1, 2]},
    "home": "${oc.env:NOWHERE}",
    "empty": {},
    "none": None,
}


class Color(enum.Enum):
    RED = 1


@dataclass
class Typed:
    color: Color = Color.RED
    place: Path = Path("/data")
    blob: bytes = b"\xff"
    missing: int = MISSING
    table: dict[int, str] = field(default_factory=lambda: {1: "a"})


def config(own: Any, *overrides: str) -> DictConfig:
    hydra = {"overrides": {"task": list(overrides), "hydra": []}, "output_subdir": ".hydra"}
    made = OmegaConf.merge(OmegaConf.create({"hydra": hydra}), own)
    assert isinstance(made, DictConfig)
    return made


def changed(tmp_path: Path, before: Any, after: Any) -> list[str]:
    (tmp_path / "payload").mkdir(exist_ok=True)
    record(tmp_path / "payload", config(before))
    return changed_keys(tmp_path, SweepState(), config(after), Mock())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"hydra": {"verbose": True}}, []),
        ({"lr": 0.10}, []),
        ({"lr": "0.1"}, ["lr: changed"]),
        ({"model": {"width": 3, "depth": 1}}, ["model.depth: added", "model.width: changed"]),
        ({"model": {"layers": [1, 2, 3]}}, ["model.layers[2]: added"]),
        ({"model": {"layers": []}}, ["model.layers: added", "model.layers[0]: removed", "model.layers[1]: removed"]),
        ({"home": "${oc.env:HOME}"}, ["home: changed"]),
        ({"empty": {"a": 1}}, ["empty: removed", "empty.a: added"]),
        ({"none": 0}, ["none: changed"]),
    ],
)
def test_differing_keys_are_named(tmp_path: Path, change: dict[str, Any], told: list[str]) -> None:
    assert changed(tmp_path, CONFIG, OmegaConf.merge(CONFIG, change)) == told


def test_values_of_every_type_are_compared(tmp_path: Path) -> None:
    assert changed(tmp_path, OmegaConf.structured(Typed), OmegaConf.structured(Typed)) == []
    other = OmegaConf.structured(Typed(place=Path("/else"), blob=b"\xfe", missing=1, table={1: "b"}))
    told = ["blob: changed", "missing: changed", "place: changed", "table.1: changed"]
    assert changed(tmp_path, OmegaConf.structured(Typed), other) == told


def test_no_value_is_stored(tmp_path: Path) -> None:
    record(tmp_path, config({"token": "very-secret", "short": 7}))
    text = (tmp_path / FILE).read_text()
    first = json.loads(text)["leaves"]
    assert "secret" not in text
    record(tmp_path, config({"token": "very-secret", "short": 7}))
    again = json.loads((tmp_path / FILE).read_text())["leaves"]
    assert first.keys() == again.keys() == {"token", "short"}
    assert not set(first.values()) & set(again.values()), "the salt is another one each time"
    assert oct((tmp_path / FILE).stat().st_mode & 0o777) == "0o600"


def test_without_the_record_the_hash_in_the_journal_decides(tmp_path: Path) -> None:
    state = SweepState(config_hash=config_hash(config(CONFIG)))
    assert changed_keys(tmp_path, state, config(CONFIG), Mock()) == []
    (told,) = changed_keys(tmp_path, state, config({"lr": 1}), Mock())
    assert told.startswith("(which keys can't be told")


def test_other_overrides_are_compared_by_what_the_recorded_ones_give_today(tmp_path: Path) -> None:
    (tmp_path / "payload").mkdir()
    record(tmp_path / "payload", config({"lr": 5}, "lr=5"))
    today = config({"lr": 7, "hydra": {"job": {"config_name": "c"}}}, "lr=7")
    context = Mock()
    context.config_loader.load_configuration.return_value = config({"lr": 5, "new": 1}, "lr=5")
    assert changed_keys(tmp_path, SweepState(), today, context) == ["new: added"]
    assert context.config_loader.load_configuration.call_args.args[:2] == ("c", ["lr=5"])


def test_many_keys_are_cut() -> None:
    error = refusal("sweep_1", [f"k{number}: added" for number in range(50)])
    assert isinstance(error, SweepChanged)
    assert "  k19: added\n  and 30 more\n" in str(error)
