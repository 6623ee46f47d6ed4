"""Which source gets the next task: the strategies hsm brings along, and loading a user's own.

A strategy sees only sources with a free slot, in the order of the selection.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from hsm_core.exceptions import ConfigError
from hsm_core.suggest import did_you_mean
from hsm_core.task import Task
from hsm_core.text import printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_GROUP = "hsm.strategies"
_FORMS = "a user's own is file.py:Class, package.module:Class or package.module.Class"


@dataclass(frozen=True)
class SourceView:
    """A source as a strategy sees it, at one moment."""

    name: str
    type: str
    capacity: int
    """slots"""
    active: int
    """slots in use"""
    weight: float
    """share under `weighted`"""
    priority: int
    """larger is preferred under `priority`"""
    has_gpu: bool

    @property
    def current_load(self) -> float:
        """Part of the slots in use, 0 to 1; a source without slots counts as full."""
        return self.active / self.capacity if self.capacity else 1.0


class Strategy(Protocol):
    """What a strategy must do; a user's class needs no base."""

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        """The source this task goes to: one of those given, which are never none."""


class StrategyFault(Exception):
    """A strategy raised or answered what is none of the given sources. The text names its class."""


class RoundRobin:
    """In rotation over the sources in their order; one without a free slot misses its turn only."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._last: str | None = None

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        self._learn([source.name for source in available_sources])
        start = 0 if self._last is None else self._order.index(self._last) + 1
        turn = {name: i for i, name in enumerate(self._order[start:] + self._order[:start])}
        chosen = min(available_sources, key=lambda source: turn[source.name])
        self._last = chosen.name
        return chosen

    def _learn(self, names: Sequence[str]) -> None:
        """Fit the names into the known order.

        Each call shows a part of the sources only, in their order; a source seen late must
        still get its place in the rotation.
        """
        after = -1
        for name in names:
            if name in self._order and self._order.index(name) > after:
                after = self._order.index(name)
                continue
            if name in self._order:
                self._order.remove(name)
            else:
                after += 1
            self._order.insert(after, name)


class LeastLoaded:
    """The source with the smallest part of its slots in use; the first of several such."""

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        return min(available_sources, key=lambda source: source.current_load)


class RandomChoice:
    """Any of the sources, all equally likely; the same ones again for the same seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        return self._random.choice(available_sources)


class Weighted:
    """In proportion to the weights, each source's turns spread evenly (nginx's smooth round robin).

    Everyone gains its weight, the richest gets the task and pays what all gained. A source
    without a free slot gains nothing meanwhile, so it has nothing to catch up on afterwards.
    """

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        for source in available_sources:
            self._credit[source.name] = self._credit.get(source.name, 0.0) + source.weight
        chosen = max(available_sources, key=lambda source: self._credit[source.name])
        self._credit[chosen.name] -= sum(source.weight for source in available_sources)
        return chosen


class Priority:
    """The source with the highest priority; equals in rotation."""

    def __init__(self) -> None:
        self._levels: dict[int, RoundRobin] = {}

    def select_source(self, task: Task, available_sources: Sequence[SourceView], /) -> SourceView:
        highest = max(source.priority for source in available_sources)
        equals = [source for source in available_sources if source.priority == highest]
        return self._levels.setdefault(highest, RoundRobin()).select_source(task, equals)


def choose(strategy: Strategy, task: Task, available: Sequence[SourceView]) -> SourceView:
    """The strategy's answer, checked: one of `available`, which must not be empty.

    The name of a source does as an answer too. Raises StrategyFault when the strategy raises or
    answers anything else.
    """
    who = f"{type(strategy).__name__}.select_source"
    try:
        answer: Any = strategy.select_source(task, list(available))
    except Exception as e:  # foreign code: it may raise anything, and must not end the sweep
        raise StrategyFault(f"{who} raised {_explain(e)} for {task.name}") from e
    if inspect.iscoroutine(answer):
        answer.close()
        raise StrategyFault(f"{who} is async; write it as a plain 'def'")
    by_name = {source.name: source for source in available}
    name = answer.name if isinstance(answer, SourceView) else answer
    if isinstance(name, str):
        if name in by_name:
            return by_name[name]
        there = f"there are {', '.join(by_name)}"
        raise StrategyFault(
            f"{who} answered '{printable(name, 60)}' for {task.name}, which is no available source"
            f"{did_you_mean(name, by_name)}; {there}"
        )
    what = "nothing (None)" if answer is None else f"a value of type {type(answer).__name__}"
    raise StrategyFault(f"{who} answered {what} for {task.name}; it must return one of available_sources")


OURS: Mapping[str, type] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "random": RandomChoice,
    "weighted": Weighted,
    "priority": Priority,
}


def load_strategy(spec: str, *, seed: int | None, base: Path) -> Strategy:
    """A new strategy of this name: one of `OURS`, `path/file.py:Class`, `package.module:Class`, an entry point of
    the group `hsm.strategies` or `package.module.Class`; looked for in this order.

    `seed` goes to a class that takes an argument of this name. `base` is the folder that relative files
    are meant from, and where modules are found that Python does not find otherwise. Raises ConfigError
    when there is nothing of that name, when it can't be imported or made, or when it has no method
    `select_source`.
    """
    if spec in OURS:
        return _made(spec, OURS[spec], seed)
    where, _, name = spec.rpartition(":")
    if spec.endswith(".py"):
        raise _wrong(spec, f"names no class; write {printable(spec)}:Class")
    if where.endswith(".py"):
        return _made(spec, _member(spec, _module_of_file(spec, base / Path(where).expanduser()), name), seed)
    if where:
        return _made(spec, _member(spec, _module(spec, where, base), name), seed)
    from importlib.metadata import entry_points  # takes long to import

    others = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if spec in others:
        return _made(spec, _of_entry_point(spec, others[spec]), seed)
    where, _, name = spec.rpartition(".")
    if where:
        return _made(spec, _member(spec, _module(spec, where, base), name), seed)
    known = sorted({*OURS, *others})
    raise _wrong(spec, f"there is no such strategy{did_you_mean(spec, known)}; there are {', '.join(known)}; {_FORMS}")


def _wrong(spec: str, text: str) -> ConfigError:
    return ConfigError([f"strategy '{printable(spec)}': {text}"])


def _module_of_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        near = did_you_mean(path.name, (other.name for other in path.parent.glob("*.py")))
        raise _wrong(spec, f"there is no file {path}{near}")
    found = importlib.util.spec_from_file_location(f"hsm_strategy_{path.stem}", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Before it runs: a dataclass looks its own module up there.
    sys.modules[found.name] = module
    try:
        with _importable(path.parent):
            found.loader.exec_module(module)
    except Exception as e:  # foreign code: it may raise anything
        del sys.modules[found.name]
        raise _wrong(spec, f"can't be imported: {_explain(e)}") from e
    return module


def _module(spec: str, name: str, base: Path) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _wrong(spec, f"'{printable(name)}' is no name of a module; {_FORMS}")
    try:
        with _importable(base):
            return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is not None and f"{name}.".startswith(f"{e.name}."):
            raise _wrong(spec, f"there is no module '{e.name}', neither for this Python nor in {base}; {_FORMS}") from e
        raise _wrong(spec, f"can't be imported: {_explain(e)}") from e
    except Exception as e:  # foreign code: it may raise anything
        raise _wrong(spec, f"can't be imported: {_explain(e)}") from e


def _of_entry_point(spec: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as e:  # foreign code: it may raise anything
        raise _wrong(spec, f"the entry point {entry.value} can't be imported: {_explain(e)}") from e


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules in the folder be found, after all others."""
    entry = str(folder)
    sys.path.append(entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The last one: the folder may have been there before.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]


def _member(spec: str, module: ModuleType, name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    classes = [key for key, value in vars(module).items() if hasattr(value, "select_source")]
    there = f"; it has {', '.join(classes)}" if classes else "; no class there has a method select_source"
    raise _wrong(spec, f"{module.__file__} has no '{printable(name)}'{did_you_mean(name, classes)}{there}")


def _made(spec: str, cls: Any, seed: int | None) -> Strategy:
    if not isinstance(cls, type):
        raise _wrong(spec, f"is no class, but a value of type {type(cls).__name__}")
    if not callable(getattr(cls, "select_source", None)):
        raise _wrong(spec, f"class {cls.__name__} has no method select_source(self, task, available_sources)")
    try:
        takes_seed = "seed" in inspect.signature(cls).parameters
        strategy: Strategy = cls(seed=seed) if takes_seed else cls()
    except Exception as e:  # foreign code: it may raise anything
        raise _wrong(spec, f"{cls.__name__}() raised {_explain(e)}") from e
    return strategy


def _explain(error: BaseException) -> str:
    """An exception of foreign code in one line: its type, its message, and where it was raised."""
    text = printable(traceback.format_exception_only(error)[-1].strip(), 300)
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else text
