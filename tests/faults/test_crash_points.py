"""A launcher dies, at every point there is; then the sweep is completed, and nothing of that is left to be seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import hsm_core
from hsm_core.control import send
from hsm_core.crashpoint import POINTS, arm
from tests.faults.session_rig import SessionRig

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

EVERY_PASS = ("event_journaled",)
"""tried whenever it is passed; the others are tried the first times"""
FIRST_PASSES = 2
OPENING = POINTS[: POINTS.index("journal_copied")]
CLOSING = POINTS[POINTS.index("ended_early") :]
ONLY_FIRST = ("registered",)
"""passed by the first launcher of a sweep, by no later one"""
ONLY_LATER = ("journal_copied", "processes_ended", "reopened", "adopted", "command_answered")
ONLY_REPLACING = ("outputs_cleared", "journal_cleared")
ONLY_STOPPED = ("ended_early",)
FINISHING = (
    "owner_written",
    "processes_ended",
    "journal_copied",
    "half_file_written",
    "reports_written",
    "tidied",
    "release_written",
)
"""passed where nothing is left to be done but the closing"""


ONLY_CLUSTERS = ("batch_written", "array_submitted")
"""passed by sources behind a scheduler, see tests/hpc"""


def others(*names: str) -> list[str]:
    return [point for point in POINTS if point not in (*ONLY_CLUSTERS, *names)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk, and nobody looks for processes, of which there are none."""
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setattr("psutil.process_iter", lambda: iter(()))


def die_everywhere(point: str, folder: Path, launcher: Callable[[SessionRig], Callable[[], object]]) -> None:
    """For each pass of the point: have this launcher of a new sweep die there, complete the sweep, and check it."""
    for number in range(1, 200 if point in EVERY_PASS else FIRST_PASSES + 1):
        here = folder / str(number)
        here.mkdir()
        rig = SessionRig(here)
        died = rig.crash(f"{point}:{number}", launcher(rig))
        assert died or number > 1, "the point is never reached"
        finished = rig.finished()
        rig.go_on()
        rig.check()
        assert rig.finished().items() >= finished.items(), "what was finished is not touched"
        if not died:
            break


def test_every_point_is_somewhere_and_no_other() -> None:
    root = Path(hsm_core.__file__).parent
    used = {
        name for path in root.rglob("*.py") for name in re.findall(r'crashpoint(?:\(|, )"(\w+)"\)', path.read_text())
    }
    assert used == set(POINTS)
    with pytest.raises(ValueError, match="there is no 'submited'"):
        arm("submited:2")


@pytest.mark.parametrize("point", others(*ONLY_LATER, *ONLY_REPLACING, *ONLY_STOPPED))
def test_the_first_launcher_dies(point: str, tmp_path: Path) -> None:
    die_everywhere(point, tmp_path, lambda rig: rig.launch)


@pytest.mark.parametrize("point", others(*ONLY_FIRST, *ONLY_REPLACING, *ONLY_STOPPED))
def test_a_launcher_that_goes_on_dies(point: str, tmp_path: Path) -> None:
    def after_another(rig: SessionRig) -> Callable[[], object]:
        assert rig.crash("outcome_journaled:4", rig.launch)
        send(rig.directory / ".hsm", "cancel")
        return lambda: rig.go_on(retry_failed=point == "reopened")

    die_everywhere(point, tmp_path, after_another)


@pytest.mark.parametrize("point", CLOSING)
def test_a_launcher_that_stops_dies(point: str, tmp_path: Path) -> None:
    die_everywhere(point, tmp_path, lambda rig: lambda: rig.launch(fail_fast=1))


@pytest.mark.parametrize("point", FINISHING)
def test_one_that_only_closes_dies(point: str, tmp_path: Path) -> None:
    def after_another(rig: SessionRig) -> Callable[[], object]:
        assert rig.crash("end_synced", rig.launch)
        return rig.go_on

    die_everywhere(point, tmp_path, after_another)


@pytest.mark.parametrize("point", [point for point in OPENING if point not in ONLY_FIRST])
def test_a_launcher_that_replaces_a_sweep_dies(point: str, tmp_path: Path) -> None:
    rig = SessionRig(tmp_path)
    rig.launch()

    def replace() -> None:
        rig.launch(on_existing="overwrite")

    assert rig.crash(point, replace)
    replace()
    rig.check()
