"""Strategies: what each deals, exactly; loading a user's own; what a faulty one is told."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.exceptions import ConfigError
from hsm_core.strategies import SourceView, Strategy, StrategyFault, choose, load_strategy
from hsm_core.task import Task

HERE = Path(__file__).parent


def task(index: int = 0, requires_gpu: bool = False) -> Task:
    return Task(index, (), "0" * 16, requires_gpu)


def view(
    name: str, capacity: int = 1000, active: int = 0, weight: float = 1.0, priority: int = 50, has_gpu: bool = False
) -> SourceView:
    return SourceView(name, "local", capacity, active, weight, priority, has_gpu)


def built_in(name: str, seed: int | None = None) -> Strategy:
    return load_strategy(name, seed=seed, base=HERE)


def deal(strategy: Strategy, views: Sequence[SourceView], count: int) -> str:
    """The first letters of the sources that get `count` tasks, all of them free all the time."""
    return "".join(choose(strategy, task(i), views).name[0] for i in range(count))


def deal_each(strategy: Strategy, rounds: str) -> str:
    """As `deal`; each word names the sources that are free when a task comes."""
    return "".join(choose(strategy, task(), [view(name) for name in free]).name for free in rounds.split())


# --- round robin ---------------------------------------------------------------------------------


def test_round_robin_deals_in_turn() -> None:
    assert deal(built_in("round_robin"), [view("1"), view("2"), view("3")], 9) == "123123123"


def test_round_robin_with_one_source() -> None:
    assert deal(built_in("round_robin"), [view("1")], 3) == "111"


def test_round_robin_a_full_source_misses_its_turn_only() -> None:
    assert deal_each(built_in("round_robin"), "123 123 12 123 123 13 123 123") == "12123" + "123"
    assert deal_each(built_in("round_robin"), "123 13 13 13 123 123 123") == "1313123"


def test_round_robin_after_a_source_that_is_full_again() -> None:
    assert deal_each(built_in("round_robin"), "123 123 13 1 23 23") == "123123"


def test_round_robin_keeps_the_order_with_sources_that_come_late() -> None:
    assert deal_each(built_in("round_robin"), "13 13 123 123 123 123") == "131231"
    assert deal_each(built_in("round_robin"), "3 1 2 123 123 123 123") == "3123123"
    assert deal_each(built_in("round_robin"), "2 34 1234 1234 1234 1234 1234") == "2341234"


@given(st.lists(st.sets(st.sampled_from("12345"), min_size=1), min_size=1, max_size=40))
def test_round_robin_takes_the_next_free_source_of_the_cycle(rounds: list[set[str]]) -> None:
    strategy = built_in("round_robin")
    last = deal_each(strategy, "12345")
    for free in rounds:
        dealt = deal_each(strategy, "".join(sorted(free)))
        cycle = "1234512345"
        expected = next(name for name in cycle[int(last) :] if name in free)
        assert dealt == expected
        last = dealt


# --- the others ----------------------------------------------------------------------------------


def test_least_loaded_compares_parts_of_the_slots() -> None:
    strategy = built_in("least_loaded")
    assert choose(strategy, task(), [view("a", 4, 2), view("b", 32, 15), view("c", 2, 1)]).name == "b"
    assert choose(strategy, task(), [view("a", 4, 2), view("b", 2, 1)]).name == "a"


def test_least_loaded_fills_sources_evenly() -> None:
    active = Counter[str]()
    strategy = built_in("least_loaded")
    for _ in range(21):
        views = [view(name, capacity, active[name]) for name, capacity in (("a", 6), ("b", 12), ("c", 24))]
        active[choose(strategy, task(), views).name] += 1
    assert active == {"a": 3, "b": 6, "c": 12}


def test_random_repeats_itself_with_the_same_seed_only() -> None:
    views = [view("a"), view("b"), view("c")]
    dealt = deal(built_in("random", 7), views, 60)
    assert dealt == deal(built_in("random", 7), views, 60)
    assert dealt != deal(built_in("random", 8), views, 60)
    assert deal(built_in("random"), views, 60) != deal(built_in("random"), views, 60)
    assert set(dealt) == set("abc")


def windows(dealt: str) -> dict[int, list[Counter[str]]]:
    """How often each source was dealt in every window, by the window's length."""
    return {n: [Counter(dealt[i : i + n]) for i in range(len(dealt) - n + 1)] for n in range(1, len(dealt) + 1)}


@pytest.mark.parametrize("weights", [(2, 4, 8), (8, 4, 2), (4, 8, 2), (1, 1, 1), (1, 3), (3, 3, 6)])
def test_weighted_keeps_the_ratio_within_one_in_every_window(weights: tuple[int, ...]) -> None:
    views = [view(name, weight=weight) for name, weight in zip("abc", weights, strict=False)]
    dealt = deal(built_in("weighted"), views, 5 * sum(weights))
    for length, counts in windows(dealt).items():
        for count in counts:
            for one in views:
                assert abs(count[one.name] - length * one.weight / sum(weights)) <= 1, (length, dealt)


def test_weighted_2_4_8_exactly() -> None:
    views = [view("a", weight=2), view("b", weight=4), view("c", weight=8)]
    assert deal(built_in("weighted"), views, 14) == "cbcacbc" * 2


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_weighted_any_window_as_long_as_the_sum_of_the_weights_is_exact(weights: list[int]) -> None:
    views = [view(name, weight=weight) for name, weight in zip("abcdef", weights, strict=False)]
    total = sum(weights)
    dealt = deal(built_in("weighted"), views, 2 * total)
    for i in range(total + 1):
        assert Counter(dealt[i : i + total]) == {one.name: one.weight for one in views}


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_weighted_two_sources_stay_within_one_in_every_window(first: float, second: float) -> None:
    dealt = deal(built_in("weighted"), [view("a", weight=first), view("b", weight=second)], 60)
    for length, counts in windows(dealt).items():
        for count in counts:
            assert abs(count["a"] - length * first / (first + second)) <= 1 + 1e-6


def test_weighted_a_source_that_was_full_has_nothing_to_catch_up_on() -> None:
    strategy = built_in("weighted")
    assert deal_each(strategy, "ab ab b b b b b b ab ab ab ab") == "ab" + "bbbbbb" + "abab"


def test_priority_prefers_the_highest_and_deals_equals_in_turn() -> None:
    high, low1, low2 = view("h", priority=100), view("1", priority=0), view("2", priority=0)
    strategy = built_in("priority")
    assert deal(strategy, [low1, high, low2], 3) == "hhh"
    turns = [[low1, low2], [low1, high, low2], [low1, low2], [high, low1, low2], [low1, low2]]
    assert "".join(choose(strategy, task(), views).name for views in turns) == "1h2h1"
    assert choose(strategy, task(), [view("n", priority=-5), view("m", priority=-4)]).name == "m"


def test_current_load() -> None:
    assert view("a", 4, 1).current_load == 0.25
    assert view("a", 0, 0).current_load == 1.0


# --- a user's own --------------------------------------------------------------------------------

GUIDE = '''\
# custom_strategy.py
class GPUPreferredStrategy:
    """Prefer GPU-enabled sources for GPU tasks."""
    
    def select_source(self, task, available_sources):
        gpu_sources = [s for s in available_sources if s.has_gpu]
        cpu_sources = [s for s in available_sources if not s.has_gpu]
        
        if task.requires_gpu and gpu_sources:
            return min(gpu_sources, key=lambda s: s.current_load)
        elif cpu_sources:
            return min(cpu_sources, key=lambda s: s.current_load)
        else:
            return min(available_sources, key=lambda s: s.current_load)
'''  # noqa: W293


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A folder to put strategies in; its modules are forgotten afterwards, and the import path is as before."""
    folder = tmp_path / "my project"
    folder.mkdir()
    path = list(sys.path)
    yield folder
    assert sys.path == path
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


FORMS = {
    "custom_strategy.py:GPUPreferredStrategy": "custom_strategy.py",
    "./lib/s.py:GPUPreferredStrategy": "lib/s.py",
    "hsm_test_a:GPUPreferredStrategy": "hsm_test_a.py",
    "hsm_test_b.inner:GPUPreferredStrategy": "hsm_test_b/inner.py",
    "hsm_test_c.inner.GPUPreferredStrategy": "hsm_test_c/inner.py",
}


@pytest.mark.parametrize("spec", FORMS)
def test_the_guides_class_from_everywhere(base: Path, spec: str) -> None:
    put(base / FORMS[spec], GUIDE)
    strategy = load_strategy(spec, seed=None, base=base)
    gpu1, gpu2 = view("gpu1", 4, 2, has_gpu=True), view("gpu2", 4, 1, has_gpu=True)
    cpu1, cpu2 = view("cpu1", 4, 3), view("cpu2", 4, 0)
    assert choose(strategy, task(requires_gpu=True), [cpu1, gpu1, cpu2, gpu2]) is gpu2
    assert choose(strategy, task(), [cpu1, gpu1, cpu2, gpu2]) is cpu2
    assert choose(strategy, task(requires_gpu=True), [cpu1]) is cpu1
    assert choose(strategy, task(), [gpu1, gpu2]) is gpu2


def test_a_file_by_its_full_path_and_from_home(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(base))
    put(base / "s.py", GUIDE)
    for spec in (f"{base}/s.py:GPUPreferredStrategy", "~/s.py:GPUPreferredStrategy"):
        assert type(load_strategy(spec, seed=None, base=base / "elsewhere")).__name__ == "GPUPreferredStrategy"


def test_a_file_with_a_dataclass_and_a_module_beside_it(base: Path) -> None:
    put(base / "lib/hsm_test_beside.py", "FIRST = 0")
    put(
        base / "lib/s.py",
        """\
        from __future__ import annotations
        from dataclasses import dataclass, field
        from hsm_test_beside import FIRST

        @dataclass
        class Mine:
            seen: list[str] = field(default_factory=list)

            def select_source(self, task, available_sources):
                self.seen.append(task.name)
                return available_sources[FIRST].name
        """,
    )
    assert deal(load_strategy("lib/s.py:Mine", seed=None, base=base), [view("x"), view("y")], 3) == "xxx"


def test_an_entry_point(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(base / "hsm_test_d.py", GUIDE)
    put(base / "d-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: d\nVersion: 1.0\n")
    put(
        base / "d-1.0.dist-info/entry_points.txt",
        "[hsm.strategies]\ngpu_first = hsm_test_d:GPUPreferredStrategy\nbroken = hsm_test_d:Gone\n",
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(base))
        assert type(built_in("gpu_first")).__name__ == "GPUPreferredStrategy"
        assert "did you mean gpu_first?" in problem("gpu_frist", base)
        assert "the entry point hsm_test_d:Gone can't be imported: AttributeError" in problem("broken", base)


def problem(spec: str, base: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_strategy(spec, seed=None, base=base)
    (text,) = caught.value.problems
    assert text.startswith(f"strategy '{spec}': ")
    return text


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("round-robin", "there is no such strategy; did you mean round_robin?; there are least_loaded, priority"),
        ("fastest", "there is no such strategy; there are least_loaded, priority, random, round_robin, weighted"),
        ("", "there is no such strategy"),
        (":Mine", "there is no such strategy"),
        ("strategys.py:Mine", "my project/strategys.py; did you mean strategies.py?"),
        ("strategies.py", "names no class; write strategies.py:Class"),
        ("strategies.py:Mnie", "strategies.py has no 'Mnie'; did you mean Mine?; it has Mine, Needy"),
        ("strategies.py:", "strategies.py has no ''"),
        ("strategies.py:Other", "class Other has no method select_source(self, task, available_sources)"),
        ("strategies.py:CONSTANT", "is no class, but a value of type int"),
        ("strategies.py:Needy", "Needy() raised TypeError: "),
        ("strategies.py:Raising", "Raising() raised OSError: no licence ("),
        ("syntax.py:Mine", "can't be imported: SyntaxError: "),
        ("syntax.py:Mine", "syntax.py:2)"),
        ("raising.py:Mine", "can't be imported: RuntimeError: not today ("),
        ("raising.py:Mine", "raising.py:2)"),
        ("hsm_no_such_module:Mine", "there is no module 'hsm_no_such_module', neither for this Python nor in "),
        ("hsm_no_such.module.Mine", "there is no module 'hsm_no_such'"),
        ("hsm_test_e:Mine", "can't be imported: ModuleNotFoundError: No module named 'hsm_no_such_dependency'"),
        ("a b:Mine", "'a b' is no name of a module"),
        (".relative:Mine", "'.relative' is no name of a module"),
        ("json:Mine", "has no 'Mine'; no class there has a method select_source"),
    ],
)
def test_what_can_not_be_loaded(base: Path, spec: str, expected: str) -> None:
    put(
        base / "strategies.py",
        """\
        CONSTANT = 1

        class Other: ...

        class Mine:
            def select_source(self, task, available_sources): ...

        class Needy(Mine):
            def __init__(self, what): ...

        class Raising(Mine):
            def __init__(self): raise OSError("no licence")
        """,
    )
    put(base / "syntax.py", "x = 1\ndef (\n")
    put(base / "raising.py", "x = 1\nraise RuntimeError('not today')\n")
    put(base / "hsm_test_e.py", "import hsm_no_such_dependency\n")
    assert expected in problem(spec, base)
    assert not [name for name in sys.modules if name in ("hsm_strategy_syntax", "hsm_strategy_raising")]


class Answering:
    """A user's strategy made of a function."""

    def __init__(self, answer: Callable[[Any, Any], Any]) -> None:
        self.answer = answer

    def select_source(self, task: Any, available_sources: Any) -> Any:
        return self.answer(task, available_sources)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text either")


async def _later(task: Any, sources: Any) -> Any:
    return sources[0]


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda task, sources: None, "answered nothing (None) for task_003; it must return one of available_sources"),
        (lambda task, sources: 0, "answered a value of type int for task_003"),
        (lambda task, sources: sources, "answered a value of type list"),
        (lambda task, sources: "servr1", "answered 'servr1' for task_003, which is no available source; did you mean"),
        (lambda task, sources: view("gone"), "answered 'gone' for task_003, which is no available source; there are"),
        (lambda task, sources: sources[9], "raised IndexError: list index out of range ("),
        (lambda task, sources: _raise(KeyError("x")), f"raised KeyError: 'x' ({__file__}:"),
        (lambda task, sources: _raise(Unprintable()), "Unprintable: "),
        (lambda task, sources: _raise(ValueError("a\x1b[2J\nb")), "raised ValueError: a\\x1b[2J\\nb ("),
        (_later, "is async; write it as a plain 'def'"),
    ],
)
def test_nonsense(answer: Callable[[Any, Any], Any], expected: str) -> None:
    with pytest.raises(StrategyFault) as caught:
        choose(Answering(answer), task(2), [view("server1"), view("server2")])
    assert str(caught.value).startswith("Answering.select_source ")
    assert expected in str(caught.value)


def test_a_strategy_of_the_wrong_shape() -> None:
    class Shapeless:
        def select_source(self) -> SourceView:
            return view("x")

    shapeless: Any = Shapeless()
    with pytest.raises(StrategyFault, match=r"^Shapeless\.select_source raised TypeError: .* for task_001$"):
        choose(shapeless, task(), [view("x")])


def test_an_answer_by_name_or_from_an_earlier_call() -> None:
    views = [view("x", 4, 1), view("y", 4, 2)]
    assert choose(Answering(lambda task, sources: "y"), task(), views) is views[1]
    assert choose(Answering(lambda task, sources: view("y", 4, 0)), task(), views) is views[1]


def test_a_strategy_may_change_the_list_it_gets() -> None:
    views = [view("x"), view("y")]
    assert choose(Answering(lambda task, sources: sources.pop()), task(), views).name == "y"
    assert [one.name for one in views] == ["x", "y"]


def test_the_end_of_the_program_is_no_fault() -> None:
    def interrupt(task: Any, sources: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(Answering(interrupt), task(), [view("x")])
