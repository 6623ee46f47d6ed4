"""What tasks are called, by the launcher and where they run."""

from __future__ import annotations

RESOLVER = "hsm_task"
"""the resolver by which a configuration asks for the name of a task: `${hsm_task:${hydra.job.num}}`"""


def task_name(index: int) -> str:
    """The name of the task with this index (`hydra.job.num`): `task_001` is index 0."""
    return f"task_{index + 1:03d}"
