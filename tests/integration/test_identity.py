"""Classes, values and exceptions of the app are its own on both sides, and no strange object harms a sweep."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import App

HEAD = """
import enum
import sys
import threading
from dataclasses import dataclass, field
import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
"""


def write(app: App, body: str) -> None:
    """An app whose task is `task(cfg)` of this text."""
    main = """
@hydra.main(version_base="1.3", config_path=None, config_name="main")
def main(cfg):
    return task(cfg)

if __name__ == "__main__":
    main()
"""
    app.write("train.py", HEAD + "\nConfigStore.instance().store(name='main', node={'case': ''})\n" + body + main)


CLASSES = """
class Color(enum.Enum):
    RED = 1
    BLUE = 2

class Missing:
    pass

NOTHING = Missing()

@dataclass
class Optimizer:
    lr: float = 0.1
    color: Color = Color.BLUE

@dataclass
class Config:
    optimizer: Optimizer = field(default_factory=Optimizer)
    case: str = ""

@dataclass(frozen=True)
class Point:
    x: int
    color: Color
    near: object = None

def helper(x):
    return 2 * x

ConfigStore.instance().store(name="main", node=Config)

def task(cfg):
    assert OmegaConf.get_type(cfg) is Config
    assert OmegaConf.get_type(cfg.optimizer) is Optimizer
    assert isinstance(OmegaConf.to_object(cfg), Config)
    assert cfg.optimizer.color is Color.BLUE
    assert Point.__module__ == "__main__" and sys.modules["__main__"].Point is Point
    return {
        "point": Point(3, Color.RED, near=Point(4, Color.BLUE)),
        "enum": cfg.optimizer.color,
        "function": helper,
        "object": OmegaConf.to_object(cfg),
        "config": cfg,
        "class": Point,
    }[cfg.case]
"""

LOOK_AT_CLASSES = """
import sys

def look(job):
    main = sys.modules["__main__"]
    value = job.return_value
    case = {
        "case=point": lambda: type(value) is main.Point
        and value == main.Point(3, main.Color.RED, near=main.Point(4, main.Color.BLUE))
        and value.near.color is main.Color.BLUE,
        "case=enum": lambda: value is main.Color.BLUE,
        "case=function": lambda: value is main.helper,
        "case=object": lambda: type(value) is main.Config and type(value.optimizer) is main.Optimizer,
        "case=config": lambda: main.OmegaConf.get_type(value) is main.Config and value.case == "config",
        "case=class": lambda: value is main.Point,
    }[job.overrides[0]]
    return [case()]
"""


def test_classes_of_the_main_program_keep_their_identity(app: App, worker: str) -> None:
    write(app, CLASSES)
    app.probed(LOOK_AT_CLASSES)
    cases = ["point", "enum", "function", "object", "config", "class"]
    app.sweep("hydra/sweeper=probe", worker, *(f"case={case}" for case in cases))
    assert app.returned() == [[True]] * len(cases)


VALUES = """
class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("I am not to be pickled")

class Unloadable:
    def __reduce__(self):
        return int, ("no number",)

class Silent:
    def __str__(self):
        raise RuntimeError("no words")

class Odd(str):
    def __str__(self):
        raise RuntimeError("no text")

class Key:
    def __str__(self):
        raise RuntimeError("no key")

def task(cfg):
    if cfg.case == "array":
        import numpy
        return numpy.float32(0.5)
    if cfg.case == "loop":
        loop = []
        loop.append(loop)
        return loop
    if cfg.case == "deep":
        deep = []
        for _ in range(100_000):
            deep = [deep]
        return deep
    return {
        "lock": lambda: threading.Lock(),
        "generator": lambda: (i for i in range(3)),
        "unpicklable": lambda: Unpicklable(),
        "unloadable": lambda: Unloadable(),
        "silent": lambda: [Silent()],
        "odd": lambda: Odd("x"),
        "key": lambda: {Key(): 1},
        "local": lambda: type("Local", (), {})(),
        "large": lambda: bytes(70 << 20),
        "not_a_number": lambda: float("nan"),
        "tuple": lambda: (1, "a", None),
        "text": lambda: "\\udcff \\x00 \\u65e5",
        "number": lambda: 10 ** 6000,
        "none": lambda: None,
        "keys": lambda: {1: "a", "b": {2.5}},
    }[cfg.case]()
"""


@pytest.fixture(scope="module")
def values(shared_app: App) -> dict[str, dict[str, Any]]:
    """Of each case: the outcome as JSON, and what the sweeper got."""
    write(shared_app, VALUES)
    shared_app.probed()
    cases = ["lock", "generator", "unpicklable", "unloadable", "silent", "odd", "key", "local", "large"]
    cases += ["not_a_number", "tuple", "text", "number", "none", "keys", "array", "loop", "deep"]
    sweep = shared_app.sweep("hydra/sweeper=probe", *(f"case={case}" for case in cases))
    outcomes = [msgspec.to_builtins(sweep.outcome(task)) for task in range(len(cases))]
    returned = [told[2:] for told in shared_app.returned()]
    return {case: {**o, "returned": r} for case, o, r in zip(cases, outcomes, returned, strict=True)}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("lock", "cannot pickle '_thread.lock' object"),
        ("generator", "cannot pickle 'generator' object"),
        ("unpicklable", "I am not to be pickled"),
        ("local", "Local"),
        ("large", "larger than 64 MiB"),
        ("deep", "recursion"),
    ],
)
def test_a_value_that_cannot_be_saved_is_a_warning(values: dict[str, dict[str, Any]], case: str, words: str) -> None:
    assert values[case]["status"] == "completed"
    assert "the return value cannot be saved" in values[case]["warning"]
    assert words in values[case]["warning"]


def test_a_value_that_cannot_be_loaded_is_shown_by_its_type(values: dict[str, dict[str, Any]]) -> None:
    assert values["unloadable"]["status"] == "completed"
    assert values["unloadable"]["returned"] == ["str", "'<Unloadable>'"]


@pytest.mark.parametrize(
    ("case", "kind", "text"),
    [
        ("not_a_number", "float", "nan"),
        ("tuple", "tuple", "(1, 'a', None)"),
        ("text", "str", r"'\udcff \x00 日'"),
        ("number", "int", "19932 bits"),
        ("none", "NoneType", "None"),
        ("keys", "dict", "{1: 'a', 'b': {2.5}}"),
        ("loop", "list", "[[...]]"),
        ("array", "float32", "np.float32(0.5)"),
    ],
)
def test_values_come_back_exactly(values: dict[str, dict[str, Any]], case: str, kind: str, text: str) -> None:
    assert values[case]["status"] == "completed"
    assert "warning" not in values[case]
    assert values[case]["returned"] == [kind, text]


def test_what_is_shown_of_a_value(values: dict[str, dict[str, Any]]) -> None:
    shown = {case: told.get("return_value") for case, told in values.items()}
    assert shown["array"] == 0.5
    assert shown["tuple"] == [1, "a", None]
    assert shown["lock"] == "<lock>"
    assert shown["keys"] == {"1": "a", "b": "<set>"}
    assert shown["not_a_number"] == "NaN"
    assert shown["silent"] == ["<Silent>"]
    assert shown["odd"] == "<Odd>"
    assert shown["key"] == {"<Key>": 1}
    assert shown["number"] == "<int>"


ERRORS = """
class Own(Exception):
    def __init__(self, code, place):
        super().__init__(f"code {code} in {place}")
        self.code, self.place = code, place

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Locked(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()

def deepest(error):
    raise error

def task(cfg):
    if cfg.case == "own":
        deepest(Own(7, "here"))
    if cfg.case == "mute":
        deepest(Mute())
    if cfg.case == "locked":
        deepest(Locked())
    if cfg.case == "group":
        deepest(ExceptionGroup("many", [ValueError("one"), Own(2, "two")]))
    if cfg.case == "chained":
        try:
            deepest(KeyError("first"))
        except KeyError as e:
            raise ValueError("second") from e
    if cfg.case == "unicode":
        b"\\xff".decode()
    if cfg.case == "interrupt":
        raise KeyboardInterrupt
    if cfg.case == "recursion":
        task(cfg)
    if cfg.case == "os":
        open("/nowhere/at/all")
    if cfg.case == "local":
        class Local(Exception):
            pass
        raise Local("inside")
    return 1
"""

LOOK_AT_ERRORS = """
import traceback

def look(job):
    try:
        job.return_value
    except BaseException as e:
        frames = [frame.name for frame in traceback.extract_tb(e.__traceback__)]
        facts = {k: v for k, v in vars(e).items() if isinstance(v, (int, str))}
        cause = None if e.__cause__ is None else repr(e.__cause__)
        try:
            text = str(e)
        except RuntimeError:
            text = "none"
        return [job.status.name, type(e).__name__, text, facts, cause, "deepest" in frames or "task" in frames]
"""


UNDECODABLE = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"


def test_exceptions_of_the_app(app: App, worker: str) -> None:
    write(app, ERRORS)
    app.probed(LOOK_AT_ERRORS)
    expected: dict[str, list[Any]] = {
        "own": ["Own", "code 7 in here", {"code": 7, "place": "here"}, None],
        "mute": ["Mute", "none", {}, None],
        "locked": ["Locked", "locked", {}, None],
        "chained": ["ValueError", "second", {}, "KeyError('first')"],
        "unicode": ["UnicodeDecodeError", UNDECODABLE, {}, None],
        "os": ["FileNotFoundError", "[Errno 2] No such file or directory: '/nowhere/at/all'", {}, None],
        "local": ["TaskError", "__main__.task.<locals>.Local: inside", {}, None],
        "interrupt": ["TaskError", "builtins.KeyboardInterrupt: ", {}, None],
    }
    if sys.version_info >= (3, 11):
        expected["group"] = ["ExceptionGroup", "many (2 sub-exceptions)", {}, None]
    app.sweep("hydra/sweeper=probe", worker, *(f"case={case}" for case in expected))
    assert dict(zip(expected, app.returned(), strict=True)) == {
        case: ["FAILED", *told, True] for case, told in expected.items()
    }


def test_the_first_failure_is_shown_when_it_happens_and_raised_at_the_end(app: App, worker: str) -> None:
    write(app, ERRORS)
    sweep = app.sweep("case=fine,own,os", worker, code=1)
    assert [sweep.outcome(task).completed for task in range(3)] == [True, False, False]
    shown, _, raised = sweep.done.stderr.partition("Error executing job with overrides: ['case=own']")
    for part in (shown, raised):
        assert "Own: code 7 in here" in part
        assert f'File "{app.folder / "train.py"}", line' in part
        assert "in deepest\n    raise error" in part
    assert f"log: {sweep.directory / '1' / 'stderr.log'}" in shown
    assert "No such file or directory: '/nowhere/at/all'" in shown
    assert "/nowhere" not in raised
    assert "hsm_core" not in sweep.said, "the app's traceback is the app's"
