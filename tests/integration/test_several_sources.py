"""One sweep over several local sources, and the sweepers that drive it."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hsm_core.task import TaskState

if TYPE_CHECKING:
    from tests.integration.conftest import App

APP = """
    import os
    import hydra

    @hydra.main(version_base=None, config_path="conf", config_name="config")
    def main(cfg):
        print("source", os.environ["HSM_SOURCE"])
        if cfg.lr in cfg.get("bad", []):
            raise ValueError(f"bad lr {cfg.lr}")
        return float(cfg.lr)

    if __name__ == "__main__":
        main()
"""
CONFIG = """
    compute_sources:
      one: {type: local, max_parallel_tasks: 1}
      two: {type: local, max_parallel_tasks: 2}
      three: {type: local, max_parallel_tasks: 4}
      pair: {type: distributed, sources: [one, three]}
"""


@pytest.fixture
def fleet(app: App) -> App:
    app.write("train.py", APP)
    app.write("conf/config.yaml", "lr: 1\nbad: []\n")
    app.write("hsm_config.yaml", CONFIG)
    return app


def test_all_sources_take_part(fleet: App) -> None:
    sweep = fleet.sweep("lr=range(21)", "hydra.launcher.sources=all")
    assert all(task.state is TaskState.COMPLETED for task in sweep.state.tasks.values())
    used = Counter(text.split()[-1] for text in sweep.texts())
    assert used.keys() == {"one", "two", "three"}
    assert used == Counter(task.attempt.source for task in sweep.state.tasks.values() if task.attempt is not None)


@pytest.mark.parametrize(
    ("sources", "slots"),
    [
        ("three,one", {"three": 4, "one": 1}),
        ("two:1", {"two": 1}),
        ("local:three:2", {"three": 2}),
        ("local", {"one": 1, "two": 2, "three": 4}),
        ("pair", {"one": 1, "three": 4}),
    ],
)
def test_selection(fleet: App, sources: str, slots: dict[str, int]) -> None:
    sweep = fleet.sweep("lr=1,2", f"hydra.launcher.sources='{sources}'")
    assert {name: source.slots for name, source in sweep.state.sources.items()} == slots


def test_priorities_prefer_one_source(fleet: App) -> None:
    sweep = fleet.sweep("lr=1,2,3", "hydra.launcher.sources='three:high,one:low'")
    assert {task.attempt.source for task in sweep.state.tasks.values() if task.attempt} == {"three"}


@pytest.mark.parametrize(
    ("sources", "words"),
    [("nobody", "nobody"), ("one,one", "one"), ("ssh:one", "local"), ("one:0", "0")],
)
def test_a_bad_selection_starts_nothing(fleet: App, sources: str, words: str) -> None:
    done = fleet.run(
        "-m", "hydra/launcher=hsm", "hydra.sweep.dir=out", "lr=1,2", f"hydra.launcher.sources='{sources}'", code=1
    )
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (fleet.folder / "out" / ".hsm").exists()


def test_a_source_that_cannot_start_stops_nothing(fleet: App) -> None:
    fleet.write("hsm_config.yaml", CONFIG + "      broken: {type: local, python: /no/such/python}\n")
    sweep = fleet.sweep("lr=1,2,3,4")
    assert sweep.state.counts[TaskState.COMPLETED] == 4
    assert "/no/such/python" in str(sweep.state.sources["broken"].disabled)


def test_a_strategy_of_the_users_own(fleet: App) -> None:
    fleet.write(
        "mine.py",
        """
        class Last:
            def select_source(self, task, available_sources):
                return available_sources[-1]
        """,
    )
    sweep = fleet.sweep("lr=1,2,3", "hydra.launcher.strategy=mine.py:Last")
    assert {task.attempt.source for task in sweep.state.tasks.values() if task.attempt} == {"three"}


def test_a_strategy_that_raises_is_named_and_replaced(fleet: App) -> None:
    fleet.write(
        "mine.py", "class Wrong:\n    def select_source(self, task, available_sources):\n        return 1 / 0\n"
    )
    sweep = fleet.sweep("lr=1,2,3", "hydra.launcher.strategy=mine.py:Wrong")
    assert sweep.state.counts[TaskState.COMPLETED] == 3
    assert "Wrong" in sweep.said
    assert "round_robin" in sweep.said


def test_optuna(fleet: App) -> None:
    """Twenty trials, three at a time: one sweep, one journal, the three failing ones told as failed."""
    unlucky = "if __import__('hydra').core.hydra_config.HydraConfig.get().job.num in (4, 9, 17):"
    fleet.write("train.py", APP.replace('if cfg.lr in cfg.get("bad", []):', unlucky))
    sweep = fleet.sweep(
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=20",
        "hydra.sweeper.n_jobs=3",
        "hydra.sweeper.max_failure_rate=1.0",
        "lr=interval(0,19)",
    )
    state = sweep.state
    assert len(state.tasks) == 20
    assert {index for index, task in state.tasks.items() if task.state is TaskState.FAILED} == {4, 9, 17}
    assert sweep.said.count("Failed experiment: bad lr") == 3
    assert len(list(sweep.directory.glob(".hsm/owner_*.json"))) == 1
    assert "best_value" in (sweep.directory / "optimization_results.yaml").read_text()


def test_output_is_streamed_when_asked(fleet: App) -> None:
    fleet.write("train.py", APP.replace("print(", "print('\\x1b]0;evil\\x07 spoke', "))
    sweep = fleet.sweep("lr=5,6", "hydra.launcher.stream=true", "hydra.launcher.sources=two")
    for name in ("task_001", "task_002"):
        assert re.search(rf"^\[{name}\] .*spoke source two$", sweep.done.stdout, re.MULTILINE)
    assert "\x1b" not in sweep.done.stdout


def test_results_table(fleet: App) -> None:
    sweep = fleet.sweep("lr=1,2,3", "+bad_one=1", "bad=[2]", code=1)
    with open(sweep.directory / "reports" / "results.csv", newline="") as f:
        rows = {row["lr"]: row for row in csv.DictReader(f)}
    assert {lr: row["status"] for lr, row in rows.items()} == {"1": "completed", "2": "failed", "3": "completed"}
    assert (rows["2"]["cause"], rows["1"]["return_value"]) == ("error", "1.0")
    assert "bad lr 2" in rows["2"]["message"]


def test_fail_fast(fleet: App) -> None:
    sweep = fleet.sweep(
        "lr=range(40)", "bad=[0,1,2,3,4,5,6,7,8]", "hydra.launcher.fail_fast=2", "hydra.launcher.sources=one", code=1
    )
    assert sweep.state.counts[TaskState.FAILED] == 2
    assert sweep.state.counts[TaskState.COMPLETED] == 0
    assert "fail_fast=2" in sweep.said


def test_retries_of_failed_tasks(fleet: App) -> None:
    fleet.write(
        "train.py",
        APP.replace(
            "return float",
            "import pathlib; p = pathlib.Path('tried'); n = p.exists(); p.touch(); assert n\n        return float",
        ),
    )
    sweep = fleet.sweep("lr=4", "hydra.launcher.compute.retry_attempts=1")
    task = sweep.state.tasks[0]
    assert task.attempt is not None
    assert (task.state, task.attempt.number, task.failures) == (TaskState.COMPLETED, 2, {"error": 1})
    assert (sweep.directory / "0" / "stdout.1.log").exists()


def test_raise_on_failure_can_be_turned_off(fleet: App) -> None:
    sweep = fleet.sweep("lr=1,2", "bad=[1]", "hydra.launcher.raise_on_failure=false")
    assert sweep.state.counts == {
        TaskState.COMPLETED: 1,
        TaskState.FAILED: 1,
        **{s: 0 for s in TaskState if not s.terminal},
    }


def test_threads_do_not_oversubscribe_the_cores(fleet: App) -> None:
    fleet.write("train.py", APP.replace('print("source"', 'print(os.environ["OMP_NUM_THREADS"], "source"'))
    cores = len(os.sched_getaffinity(0))
    sweep = fleet.sweep("lr=1", "hydra.launcher.sources=one", to="single")
    assert sweep.text(0).split()[0] == str(cores)
    sweep = fleet.sweep("lr=1", "hydra.launcher.sources=all", to="many")
    assert sweep.text(0).split()[0] == str(max(1, cores // 7))


def test_the_journal_knows_what_was_run(fleet: App) -> None:
    same = [fleet.sweep(f"lr={values}", to=to).state.started for values, to in (("1,2", "a"), ("1,2,3", "b"))]
    other = fleet.sweep("lr=1,2", "+new=1", to="c").state.started
    assert same[0] is not None
    assert same[1] is not None
    assert other is not None
    assert same[0].config_hash == same[1].config_hash != other.config_hash
    assert same[0].argv[1:4] == ("train.py", "-m", "hydra/launcher=hsm")
