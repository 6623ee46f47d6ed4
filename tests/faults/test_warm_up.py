"""Agents that are started before there is a sweep, and what becomes of them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from hsm_core.config import HsmConfig, SourceConfig
from hsm_core.events import AttemptFinished
from hsm_core.exceptions import SourceError
from hsm_core.remote import marks
from hsm_core.sources.local import LocalSource
from hsm_core.task import TaskState
from hsm_core.testing import Bench, wait_until


def warm(folder: Path, python: str | None = None) -> Bench:
    """A bench whose source was told to warm up."""
    source = LocalSource("local", SourceConfig(type="local", python=python), slots=1)
    bench = Bench(source, folder)
    source.warm_up(bench.directory, HsmConfig(), 1)
    return bench


def running(bench: Bench) -> set[int]:
    """The pids of all that its source has started."""
    return set(marks.marked(f"{bench.directory}:"))


def warmed(bench: Bench) -> set[int]:
    """What runs once the source is warm: the agent, and its zygote."""
    wait_until(lambda: len(running(bench)) == 2, "the agent and its zygote")
    return running(bench)


def test_a_new_sweep_takes_the_agent_that_waits(tmp_path: Path) -> None:
    bench = warm(tmp_path)
    early = warmed(bench)
    bench.start()
    try:
        assert bench.source.describe()["pid"] in early
        bench.source.submit([bench.attempt(0, "do=return", "value=1")])
        ended = bench.wait(lambda event: isinstance(event, AttemptFinished))
        assert isinstance(ended, AttemptFinished)
        assert ended.outcome.status is TaskState.COMPLETED
    finally:
        bench.source.stop(5.0)
    assert running(bench) == set()


def test_a_later_launcher_starts_its_own(tmp_path: Path) -> None:
    bench = warm(tmp_path)
    early = warmed(bench)
    bench.start(epoch=2)
    try:
        assert bench.source.describe()["pid"] not in early
        assert not running(bench) & early
    finally:
        bench.source.stop(5.0)


def test_one_that_is_not_needed_ends(tmp_path: Path) -> None:
    bench = warm(tmp_path)
    assert warmed(bench)
    bench.source.stop(0.0)
    wait_until(lambda: not running(bench), "the end of what was started")


@pytest.mark.parametrize("python", ["here", "nowhere"])
def test_an_interpreter_that_does_not_work_is_told_with_the_start(tmp_path: Path, python: str) -> None:
    broken = tmp_path / "here"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('this one is broken')\n")
    broken.chmod(0o755)
    bench = warm(tmp_path, python=str(tmp_path / python))
    with pytest.raises(SourceError, match=r"agent ended before it was ready; see|can't be found or run") as error:
        bench.start()
    if python == "here":
        log = Path(str(error.value).rpartition("see ")[2])
        assert "this one is broken" in log.read_text()


def test_no_room_for_what_an_agent_says_is_told_with_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        m.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        bench = warm(tmp_path)
        with pytest.raises(SourceError, match=r"local: its agent can't be started: .*No such file"):
            bench.start()
    bench.source.stop(0.0)
