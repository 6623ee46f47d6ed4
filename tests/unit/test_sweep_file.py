"""sweep.yaml: every mistake found with its line, and values that arrive in the app as they were written."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hsm_core.exceptions import ConfigError, SweepError
from hsm_core.sweep_file import RunOptions, SweepFile, command_line, environment_value, load
from hsm_core.sweep_launch import next_directory, program, reserve_directory
from hsm_core.yaml_lines import read_yaml

GOOD = """\
app: train.py
overrides: [epochs=10]
sweep:
  grid:
    lr: [1e-3, 0.01]
    seed: range(0,3)
    name: ["a, b", null, true]
  paired:
    - sizes: {width: [64, 128], depth: [2, 4]}
max_runs: 5
hsm: {sources: "local:4", compute: {retry_attempts: 2}, compute_sources: {local: {type: local}}}
"""


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    path = file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


# --- what a file says


def test_a_good_file(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD)
    assert load(path) == SweepFile(
        path=path,
        app="train.py",
        overrides=("epochs=10",),
        grid={"lr": [0.001, 0.01], "seed": "range(0,3)", "name": ["a, b", None, True]},
        paired=({"width": [64, 128], "depth": [2, 4]},),
        max_runs=5,
        hsm={"sources": "local:4", "compute": {"retry_attempts": 2}, "compute_sources": {"local": {"type": "local"}}},
    )


def test_the_command_line_of_a_good_file(tmp_path: Path) -> None:
    assert command_line(load(file(tmp_path, GOOD)), ["python", "train.py"], "sweeps/one two") == [
        "python",
        "train.py",
        "--multirun",
        "hydra/launcher=hsm",
        "hydra/sweeper=hsm",
        "hydra.sweep.dir='sweeps/one two'",
        "hydra.sweep.subdir='tasks/${hsm_task:${hydra.job.num}}'",
        "++hydra.launcher.sources='local:4'",
        "++hydra.launcher.compute.retry_attempts=2",
        "++hydra.launcher.compute_sources={local:{type:local}}",
        "epochs=10",
        "lr=0.001,0.01",
        "seed=range(0,3)",
        "name='a, b',null,true",
        "hydra.sweeper.paired=[{width:[64,128],depth:[2,4]}]",
        "hydra.sweeper.max_runs=5",
    ]


def test_values_of_the_environment_stay_in_the_file(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        """
        app: train.py
        hsm:
          compute_sources:
            a.1-e5: {type: local, env: {pass: [HOME], set: {TOKEN: "it's $x", N: 7, OF: "${oc.env:OF}"}}}
            other: {type: local}
        """,
    )
    line = command_line(load(path), ["python", "train.py"], "out")
    assert f"hydra.launcher.sweep_file='{path}'" in line
    (sources,) = (words for words in line if "compute_sources" in words)
    read = OverridesParser.create().parse_override(sources).value()
    assert read == {
        "a.1-e5": {
            "type": "local",
            "env": {
                "pass": ["HOME"],
                "set": {
                    "TOKEN": "${hsm_env:${hydra.launcher.sweep_file},a.1-e5/TOKEN}",
                    "N": "${hsm_env:${hydra.launcher.sweep_file},a.1-e5/N}",
                    "OF": "${oc.env:OF}",
                },
            },
        },
        "other": {"type": "local"},
    }
    assert environment_value(str(path), "a.1-e5/TOKEN") == "it's $x"
    assert environment_value(str(path), "a.1-e5/N") == 7
    assert environment_value(str(path), "a.1-e5/GONE") is None
    path.unlink()
    assert environment_value(str(path), "a.1-e5/TOKEN") is None


def test_a_name_that_no_command_line_can_carry(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "app: train.py\nhsm:\n  compute_sources:\n    sérver: {type: local}\n")
    assert problem.startswith("3: hsm.compute_sources: 'sérver' as a key of a dict value can't be written")
    assert problem.endswith("hsm_config.yaml takes it")


def test_options_stand_behind_the_file_and_win(tmp_path: Path) -> None:
    options = RunOptions(
        sources="a:1,b",
        strategy="mine.py:Mine",
        max_runs=3,
        seed=7,
        dependency="afterok:12:13?singleton",
        fail_fast=0.5,
        retry_attempts=0,
        overrides=("lr=1", "epochs=2", "--config-name=other"),
    )
    line = command_line(load(file(tmp_path, GOOD)), ["python", "train.py"], "d", options)
    for override in (
        "hydra.launcher.sources='a:1,b'",
        "hydra.launcher.strategy='mine.py:Mine'",
        "hydra.launcher.dependency='afterok:12:13?singleton'",
        "hydra.launcher.seed=7",
        "hydra.launcher.fail_fast=0.5",
        "hydra.launcher.compute.retry_attempts=0",
        "hydra.sweeper.max_runs=3",
    ):
        assert override in line
    assert line[-3:] == ["lr=1", "epochs=2", "--config-name=other"]
    assert not [part for part in line if part.startswith("lr=0") or part == "epochs=10"]
    assert line.index("hydra.launcher.sources='a:1,b'") > line.index("++hydra.launcher.sources='local:4'")


def test_a_paired_key_cannot_be_overridden_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="width is paired in"):
        command_line(load(file(tmp_path, GOOD)), ["python"], "d", RunOptions(overrides=("width=3",)))
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir is set by hsm run"):
        command_line(load(file(tmp_path, GOOD)), ["python"], "d", RunOptions(overrides=("hydra.sweep.dir=x",)))


# --- what can be wrong with it


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("sweep: {grid: {a: [1]}}", 1, "app: is missing"),
        ("", 1, "app: is missing"),
        ("[1, 2]", 1, "must be a mapping with the keys app, overrides"),
        ("app: t.py\n\nsweeep: {}", 3, "sweeep: unknown key; did you mean sweep?"),
        ("app: t.py\nsweep:\n  gird: {a: [1]}", 3, "sweep.gird: unknown key; did you mean grid?"),
        ("app: t.py\nsweep: {}", 2, "sweep: must hold grid, paired or both"),
        ("app: t.py\nsweep:", 2, "sweep: must hold grid, paired or both"),
        ("app: t.py\nsweep:\n  grid: {}", 3, "sweep.grid: the grid is empty"),
        ("app: t.py\nsweep:\n  grid: [a]", 3, "must be a mapping of keys to lists"),
        ("app: t.py\nsweep:\n  grid:\n    a: []", 4, "sweep.grid.a: is empty"),
        ("app: t.py\nsweep:\n  grid:\n    a:", 4, "sweep.grid.a: is empty"),
        ("app: t.py\nsweep:\n  grid:\n    a: {b: 1}", 4, "must be a list of values"),
        ("app: t.py\nsweep:\n  grid:\n    a: range(3,1)", 4, "'a=range(3,1)' has no values"),
        ("app: t.py\nsweep:\n  grid:\n    a: choice(1", 4, "is no Hydra override: "),
        ("app: t.py\nsweep:\n  grid:\n    a b: [1]", 4, "is no Hydra override: "),
        ("app: t.py\nsweep:\n  grid:\n    a: [2020-01-01, !!set {x}]", 4, "can't be written as a Hydra override"),
        ("app: t.py\nsweep:\n  paired: {a: [1]}", 3, "must be a list of groups"),
        ("app: t.py\nsweep:\n  paired:\n    - a: [1]", 4, "must be one group"),
        ("app: t.py\nsweep:\n  paired:\n    - g: {}", 4, "the group is empty"),
        ("app: t.py\nsweep:\n  paired:\n    - g: {a: 1}", 4, "must be a list of values"),
        ("app: t.py\noverrides: epochs=1", 2, "must be a list of Hydra overrides"),
        ("app: t.py\noverrides:\n  - a=1\n  - b: 2", 4, "must be a Hydra override as text"),
        ("app: t.py\noverrides: ['a=[1']", 2, "is no Hydra override"),
        ("app: t.py\noverrides: [hydra.sweep.dir=x]", 2, "hydra.sweep.dir is set by hsm run"),
        ("app: t.py\nmax_runs: 0", 2, "max_runs: must be a whole number, 1 or more"),
        ("app: t.py\nmax_runs: true", 2, "max_runs: must be a whole number, 1 or more"),
        ("app: [a]", 1, "app: must be a text"),
        ("app: t.py\nhsm:\n  compute:\n    retry_attempts: x", 4, "hsm.compute.retry_attempts: must be a whole number"),
        ("app: t.py\nhsm: {startegy: random}", 2, "did you mean strategy?"),
        ("app: t.py\napp: u.py", 2, "app stands here twice; the first is in line 1"),
        ("app: t.py\nsweep: {grid: {a: [1}", 2, "not valid YAML"),
        ("app: &a [*a]", 1, "an anchor refers to itself"),
        ("app: \x07", 1, "not readable as text"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem.startswith(f"{line}: ") and words in problem for problem in found), found


def test_lists_of_unequal_length_are_told_with_their_lengths(tmp_path: Path) -> None:
    (found,) = problems(
        tmp_path,
        """\
        app: t.py
        sweep:
          paired:
            - sizes:
                width: [1, 2, 3]
                depth: [1]
        """,
    )
    assert found == (
        "4: sweep.paired[0].sizes: the lists of a group must be equally long, but width has 3 values, depth has 1 value"
    )


def test_a_key_can_be_set_in_one_place_only(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
        app: t.py
        overrides: [a=1]
        sweep:
          grid:
            a: [1]
            +b: [1]
          paired:
            - g: {b: [1], c: [1]}
            - h: {c: [1]}
        """,
    )
    assert found == [
        "5: sweep.grid.a: a is set in line 2 too; keep one of the two",
        "8: sweep.paired[0].g.b: b is set in line 6 too; keep one of the two",
        "9: sweep.paired[1].h.c: c is set in line 8 too; keep one of the two",
    ]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "ap: t.py\nmax_runs: x\nsweep: {grid: {a: [], b: []}, pairs: []}")) == 6


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml can't be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "sweep.yaml").write_bytes(b"app: \xff\xfe")
    with pytest.raises(ConfigError, match="it is no UTF-8 text"):
        load(tmp_path / "sweep.yaml")


def test_interpolations_stay_and_lines_are_known() -> None:
    read = read_yaml("a: ${oc.env:NONE}\nb:\n  - x\n  - {c: 1}\n")
    assert read.data == {"a": "${oc.env:NONE}", "b": ["x", {"c": 1}]}
    assert read.lines == {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4}


# --- the app and the directory


def sweep_of(tmp_path: Path, app: str) -> SweepFile:
    return SweepFile(tmp_path / "sweeps.d" / "sweep.yaml", app)


def test_a_script_beside_the_sweep_file_comes_before_one_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "sweeps.d").mkdir()
    (tmp_path / "train it.py").touch()
    assert program(sweep_of(tmp_path, "train it.py"), tmp_path) == [sys.executable, str(tmp_path / "train it.py")]
    (tmp_path / "sweeps.d" / "train it.py").touch()
    assert program(sweep_of(tmp_path, "train it.py"), tmp_path)[1] == str(tmp_path / "sweeps.d" / "train it.py")


def test_an_app_that_is_missing_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sweeps.d").mkdir()
    (tmp_path / "sweeps.d" / "train.py").touch()
    with pytest.raises(ConfigError, match=r"there is no trian\.py in .*; did you mean train\.py\?"):
        program(sweep_of(tmp_path, "trian.py"), tmp_path)


def test_a_module_is_found_without_being_imported(tmp_path: Path) -> None:
    package = tmp_path / "mypackage"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "inner" / "train.py").touch()
    assert program(sweep_of(tmp_path, "-m mypackage.inner.train"), tmp_path) == [
        sys.executable,
        "-m",
        "mypackage.inner.train",
    ]
    for missing in ("mypackage.outer", "nothing", "mypackage.inner.train.deeper", "json.."):
        with pytest.raises(ConfigError, match="there is no module"):
            program(sweep_of(tmp_path, f"-m {missing}"), tmp_path)


def test_two_sweeps_of_the_same_second_get_two_directories(tmp_path: Path) -> None:
    first, second = (reserve_directory(tmp_path, 1_768_487_422.0) for _ in range(2))
    assert first.parent == Path("sweeps/outputs")
    assert second.name == f"{first.name}_2"
    third = next_directory(tmp_path, 1_768_487_422.0)
    assert third.name == f"{first.name}_3"
    assert not (tmp_path / third).exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "outputs").write_text("")
    with pytest.raises(SweepError, match="is in the way: it is no directory"):
        reserve_directory(tmp_path, 0.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SweepError, match="can't be made: Not a directory"):
        reserve_directory(tmp_path / "file", 0.0)
