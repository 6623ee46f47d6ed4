"""PBS whose commands are asked from afar: they run at a site that is reached by a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core.sources.hpc.batch import Batch
from hsm_core.sources.hpc.login_node import There
from hsm_core.sources.hpc.pbs import Pbs
from hsm_core.sources.hpc.resources import parse
from hsm_core.sources.hpc.scheduler import Job
from hsm_core.sources.hpc.states import JobState, Phase
from hsm_core.testing import wait_until
from tests.testbed.pbs.bed import StandIn
from tests.testbed.site_line import Line, reach


@pytest.fixture
def there(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pbs]:
    lines: list[Line] = []

    def come() -> Any:
        with monkeypatch.context() as environment:
            for name, value in stand_in.environ.items():
                environment.setenv(name, value)
            lines.append(reach(tmp_path))
        return lines[-1]

    site = There(come)
    site.start()
    scheduler = Pbs(site)
    scheduler.start()
    yield scheduler
    for line in lines:
        line.let_go()


def job(folder: Path, script: str) -> Job:
    folder.mkdir()
    return Job("hsm-token", str(folder), ["sh", "-c", script, "sh"], ["export LEAD=led"], 2, parse({}), None, False, 0)


def states(there: Pbs, batch: Batch) -> list[JobState]:
    found = there.states([batch], [])
    return [found[there.element(str(batch.job), index)] for index in range(2)]


def test_an_array_from_its_submission_to_its_end(there: Pbs, tmp_path: Path) -> None:
    assert there.find("hsm-token") is None
    wanted = job(tmp_path / "batch", f"echo $LEAD $1 >&2; touch {tmp_path}/$1")
    batch = Batch(wanted.folder, ["a", "b"], wanted.resources, there.submit(wanted))
    assert there.find("hsm-token") == batch.job
    wait_until(lambda: all(state.phase is Phase.COMPLETED for state in states(there, batch)), "both to end")
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1"}
    assert Path(there.log(batch, 1)).read_text() == "led 1\n"


def test_an_array_that_is_cancelled(there: Pbs, tmp_path: Path) -> None:
    wanted = job(tmp_path / "batch", "sleep 600")
    batch = Batch(wanted.folder, ["a", "b"], wanted.resources, there.submit(wanted))
    wait_until(lambda: all(state.phase is Phase.RUNNING for state in states(there, batch)), "both to run")
    there.cancel([there.element(str(batch.job), index) for index in range(2)])
    wait_until(lambda: not any(state.phase.lives for state in states(there, batch)), "both to end")
