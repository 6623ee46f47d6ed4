"""Jobs are matched with known tasks by their overrides; numbers are never given twice."""

from __future__ import annotations

from hsm_core.points import Points
from hsm_core.state import TaskRecord
from hsm_core.task import task_key


def known(*jobs: tuple[int, str]) -> dict[int, TaskRecord]:
    return {index: TaskRecord(index, task_key([text]), (text,)) for index, text in jobs}


def numbers(points: Points, *jobs: str, first: int = 0) -> list[int]:
    return [task.index for task in points.tasks([[job] for job in jobs], first)]


def test_a_new_sweep_counts_from_the_sweepers_own_index() -> None:
    points = Points({})
    assert numbers(points, "x=1", "x=2") == [0, 1]
    assert numbers(points, "x=3", first=2) == [2]
    assert points.unasked == 0


def test_known_points_keep_their_numbers_and_new_ones_stand_behind() -> None:
    points = Points(known((0, "x=1"), (4, "x=2"), (1, "x=3")))
    assert numbers(points, "x=0", "x=2", "x=9", "x=1") == [5, 4, 6, 0]
    assert points.unasked == 1
    assert numbers(points, "x=8", first=4) == [7], "the sweeper's own index does not matter"


def test_a_point_that_comes_up_twice_is_two_tasks_also_after_a_resume() -> None:
    points = Points({})
    first = list(points.tasks([["x=1"], ["x=1"], ["x=2"]], 0))
    assert [task.index for task in first] == [0, 1, 2]
    again = Points({task.index: TaskRecord(task.index, task.key, task.overrides) for task in first})
    assert numbers(again, "x=2", "x=1", "x=1", "x=1") == [2, 0, 1, 3]


def test_what_is_under_hydra_and_the_order_of_overrides_make_no_other_point() -> None:
    points = Points({})
    first = [task.key for task in points.tasks([["x=1", "y=2"]], 0)]
    again = Points({0: TaskRecord(0, first[0], ("x=1", "y=2"))})
    assert [task.index for task in again.tasks([["y=2", "x=1", "hydra.verbose=true"]], 0)] == [0]
