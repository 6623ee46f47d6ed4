"""The log tree and the error files of a sweep."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from hsm_core import events as ev
from hsm_core.config import LoggingConfig
from hsm_core.listeners.error_files import ErrorFiles
from hsm_core.listeners.logs import LogTree
from hsm_core.task import Cause, Outcome, TaskState
from hsm_core.text import stamp

if TYPE_CHECKING:
    from tests.unit.conftest import Story

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (DEBUG|INFO|WARNING|ERROR|CRITICAL) - \S.*")


def lines(story: Story, name: str) -> list[str]:
    return (story.directory / "logs" / name).read_text(encoding="utf-8").splitlines()


def texts(story: Story, name: str = "sweep_aggregated.log") -> list[str]:
    """The lines without their times."""
    return [line.partition("] ")[2] for line in lines(story, name)]


def log(story: Story, config: LoggingConfig | None = None) -> LogTree:
    tree = LogTree(story.directory, config or LoggingConfig())
    story.listeners.append(tree)
    return tree


def test_the_aggregated_log_tells_the_sweep(story: Story) -> None:
    log(story)
    story.begin("local", "cluster")
    task = story.add("lr=1")
    story.submit(task, "cluster")
    where = str(story.directory / "tasks" / "task_001")
    story.finish(task, Outcome(TaskState.COMPLETED, duration=3.24, output_dir=where))
    failing = story.add("lr=2")
    story.submit(failing)
    story.finish(failing, Outcome.failed(Cause.TIMEOUT, "over 60s", duration=60), retry_in=30.0)
    story.submit(failing, "cluster")
    story.finish(failing, Outcome.failed(Cause.TIMEOUT, "over 60s", duration=60))
    story.end()
    assert all(LINE.fullmatch(line) for line in lines(story, "sweep_aggregated.log"))
    assert texts(story) == [
        "INFO - Sweep sweep_20260115_143022 started on laptop (pid 4711)",
        "INFO - Source local started (local, 2 slots)",
        "INFO - Source cluster started (local, 2 slots)",
        "INFO - Task task_001 started on cluster",
        f"INFO - Task task_001 completed on cluster (3.2s) [output in {where}]",
        "INFO - Task task_002 started on local",
        "WARNING - Task task_002 failed on local (timeout, 1m 00s): over 60s; next attempt in 30.0s",
        "INFO - Task task_002 reassigned to cluster (attempt 2)",
        "INFO - Task task_002 started on cluster (attempt 2)",
        "ERROR - Task task_002 failed on cluster (attempt 2) (timeout, 1m 00s): over 60s",
        "INFO - Sweep sweep_20260115_143022 finished (1 completed, 1 failed)",
    ]


@pytest.fixture
def three_hours_east() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC-3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("three_hours_east")
def test_times_are_local_and_those_of_the_events(story: Story) -> None:
    log(story)
    story.begin()
    assert lines(story, "sweep_aggregated.log")[0].startswith("[2026-01-15 17:30:23] ")


def test_assignments_and_health(story: Story) -> None:
    log(story)
    story.begin()
    task = story.add("lr=1")
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.LOST, "gone"), retry_in=0.0)
    story.submit(task)
    story.tell(ev.SourceDown("local", "no answer"))
    story.tell(ev.SourceUp("local"))
    story.tell(ev.SourceDisabled("local", "host key changed"))
    assert texts(story, "task_assignments.log") == ["task_001 -> local (attempt 1)", "task_001 -> local (attempt 2)"]
    assert texts(story, "health_status.log") == [
        "INFO - Source local started (local, 2 slots)",
        "WARNING - Source local is down: no answer",
        "INFO - Source local is back",
        "ERROR - Source local disabled: host key changed",
    ]


def test_each_source_has_its_own_lines(story: Story) -> None:
    log(story)
    story.begin("local", "spare")
    story.complete("lr=1", source="local")
    story.complete("lr=2", source="spare")
    assert [text for text in texts(story, "sources/spare.log") if "Task" in text] == [
        "INFO - Task task_002 started on spare",
        "INFO - Task task_002 completed on spare (2.0s)",
    ]


def test_utilisation_is_told_once_a_second_and_at_the_end(story: Story) -> None:
    tree = log(story)
    story.begin(slots=4)
    for n in range(3):
        story.add(f"lr={n}")
    for n, after in enumerate((1.0, 0.2, 0.3)):
        story.tell(ev.AttemptSubmitted(n, 1, 1, "local"), after)
    assert texts(story, "source_utilization.log") == ["local 1/4 (25%)"]
    story.tell(ev.Note("INFO", "something else"), after=2.0)
    assert texts(story, "source_utilization.log") == ["local 1/4 (25%)", "local 3/4 (75%)"]
    story.tell(ev.AttemptFinished(0, 1, 1, "local", Outcome(TaskState.COMPLETED)), after=0.1)
    tree.close()
    assert texts(story, "source_utilization.log")[2:] == ["local 2/4 (50%)"]


def test_a_clock_set_back_does_not_silence_the_utilisation(story: Story) -> None:
    log(story)
    story.begin()
    story.add("lr=1")
    story.tell(ev.AttemptSubmitted(0, 1, 1, "local"))
    story.tell(ev.AttemptFinished(0, 1, 1, "local", Outcome(TaskState.COMPLETED)), after=-86400)
    assert len(lines(story, "source_utilization.log")) == 2


def test_hostile_text_stays_one_harmless_line(story: Story) -> None:
    log(story)
    story.begin("../../evil\n\x1b[2J")
    story.tell(ev.Note("warning", "\x1b]0;title\x07\nERROR - forged", source="../../evil\n\x1b[2J"))
    story.fail("x=1", message="\x1b[31m" + "a" * 5000)
    text = (story.directory / "logs" / "sweep_aggregated.log").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert texts(story)[2] == "WARNING - \\x1b]0;title\\x07\\nERROR - forged"
    assert max(len(line) for line in text.splitlines()) < 2500
    assert [path.parent.name for path in story.directory.rglob("*evil*")] == ["sources"]


@pytest.mark.parametrize(
    ("config", "there", "missing"),
    [
        (LoggingConfig(file_logging=False), [], ["logs"]),
        (LoggingConfig(source_specific_logs=False), ["logs/sweep_aggregated.log"], ["logs/sources"]),
        (LoggingConfig(aggregated_logs=False), ["logs/sources/local.log"], ["logs/sweep_aggregated.log"]),
    ],
)
def test_what_is_switched_off_is_not_written(
    story: Story, config: LoggingConfig, there: list[str], missing: list[str]
) -> None:
    log(story, config)
    story.begin()
    story.complete("lr=1")
    assert all((story.directory / name).exists() for name in there)
    assert not any((story.directory / name).exists() for name in missing)


def test_the_level_holds_for_the_aggregated_and_the_source_logs(story: Story) -> None:
    log(story, LoggingConfig(level="ERROR"))
    story.begin()
    story.complete("lr=1")
    story.fail("lr=2")
    for name in ("sweep_aggregated.log", "sources/local.log"):
        assert texts(story, name) == ["ERROR - Task task_002 failed on local (error, 0.5s): ValueError: no"]
    assert len(lines(story, "task_assignments.log")) == 2


def test_a_resumed_sweep_goes_on_in_the_same_files(story: Story) -> None:
    log(story).close()
    story.begin()
    story.listeners.append(LogTree(story.directory, LoggingConfig()))
    story.tell(ev.SweepResumed(2, "laptop", 99))
    assert texts(story)[0].endswith("started on laptop (pid 4711)")
    assert texts(story)[-1] == "INFO - Sweep sweep_20260115_143022 resumed on laptop (pid 99), launcher epoch 2"


def error_file(story: Story, task: str = "task_001") -> Path:
    return story.directory / "errors" / f"{task}_error.txt"


def fail(story: Story, stderr: bytes = b"", traceback: str | None = None, **facts: object) -> None:
    task = story.add("lr=1", "name='a b'")
    story.submit(task)
    outcome = Outcome.failed(Cause.ERROR, "ValueError: no", **{**story.output(task, stderr, traceback), **facts})
    story.finish(task, outcome)


def test_a_failed_task_leaves_all_that_is_known(story: Story) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    trace = 'Traceback (most recent call last):\n  File "train.py", line 3, in main\nValueError: no'
    fail(story, b"epoch 1\nepoch 2\n", trace, exit_code=1, signal=11, duration=2.5, peak_memory=100.0, host="node9")
    text = error_file(story).read_text()
    for fact in (
        "task_001 failed",
        "cause:       error",
        "message:     ValueError: no",
        "source:      local",
        "host:        node9",
        "attempt:     1",
        "exit code:   1",
        "signal:      11 (SIGSEGV)",
        "peak memory: 100 MiB",
        "failures:    1 x error",
        "  lr=1\n  name='a b'",
        str(story.directory / "tasks" / "task_001" / "stdout.log"),
        trace,
        "End of stderr.log:\nepoch 1\nepoch 2",
    ):
        assert fact in text


def test_only_a_task_that_failed_for_good_has_a_file(story: Story) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    story.complete("lr=1")
    task = story.add("lr=2")
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.LOST, "gone"), retry_in=0.0)
    assert not (story.directory / "errors").exists()
    story.submit(task)
    story.finish(task, Outcome.failed(Cause.LOST, "gone"))
    assert "lost on:     node7 (local), node7 (local)" in error_file(story, "task_002").read_text()
    story.tell(ev.TaskReopened(task))
    assert not error_file(story, "task_002").exists()


def test_the_next_launcher_writes_and_removes_what_the_last_one_did_not_live_to(story: Story) -> None:
    story.begin()
    story.complete("lr=1")
    story.fail("lr=2", message="ValueError: no")
    ended = story.at
    again = story.fail("lr=3")
    story.fail("lr=4")
    error_file(story, "task_003").parent.mkdir()
    for name in ("task_003", "task_004"):
        error_file(story, name).write_text("written before")
    story.tell(ev.TaskReopened(again))
    story.listeners.append(ErrorFiles(story.directory))
    story.tell(ev.SweepResumed(2, "laptop", 4712), after=3600.0)
    assert sorted(path.name for path in (story.directory / "errors").iterdir()) == [
        "task_002_error.txt",
        "task_004_error.txt",
    ]
    assert error_file(story, "task_004").read_text() == "written before"
    text = error_file(story, "task_002").read_text()
    assert "message:     ValueError: no" in text
    assert f"ended:       {stamp(ended)}" in text


def test_the_tail_of_the_output_is_bounded_and_harmless(story: Story) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    noise = b"\n".join(b"line %d" % n for n in range(1000)) + b"\n\x1b]0;evil\x07\xff\x00\nbar 1%\rbar 99%\r\n"
    fail(story, b"x" * 1_000_000 + noise, "trace\x1b[2J")
    text = error_file(story).read_text()
    assert "\x1b" not in text
    assert "\\x1b]0;evil\\x07\\xff\\x00" in text
    assert text.endswith("\nbar 99%\n")
    assert "line 953\n" in text
    assert "line 951\n" not in text


def test_one_endless_line_is_cut(story: Story) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    fail(story, b"x" * 5_000_000)
    assert error_file(story).stat().st_size < 70_000


@pytest.mark.parametrize("where", ["/etc", "../..", "/nonexistent", "a\0b"])
def test_nothing_outside_the_sweep_directory_is_read(story: Story, where: str) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    (story.directory.parent / "stderr.log").write_text("secret")
    (story.directory.parent.parent / "stderr.log").write_text("secret")
    fail(story, output_dir=where, record="../../stderr.log")
    text = error_file(story).read_text()
    assert "secret" not in text
    assert "outside the sweep directory, not read" in text


def test_links_and_pipes_in_place_of_the_output_are_not_followed(story: Story, tmp_path: Path) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    (tmp_path / "secret").write_text("secret")
    task = story.add("lr=1")
    story.submit(task)
    outcome = Outcome.failed(Cause.ERROR, "no", **story.output(task, b"", None))
    log_file = story.directory / "tasks" / "task_001" / "stderr.log"
    log_file.unlink()
    log_file.symlink_to(tmp_path / "secret")
    story.finish(task, outcome)
    assert "secret" not in error_file(story).read_text()
    log_file.unlink()
    os.mkfifo(log_file)
    again = story.add("lr=2")
    story.submit(again)
    story.finish(again, replace(outcome, message="pipe"))
    assert "is no regular file" in error_file(story, "task_002").read_text()


@pytest.mark.parametrize("record", ["{", "[]", '{"error": 3}', '{"error": {"traceback": 5}}', "[" * 100_000])
def test_a_record_that_is_none_is_no_reason_to_fail(story: Story, record: str) -> None:
    story.listeners.append(ErrorFiles(story.directory))
    story.begin()
    task = story.add("lr=1")
    story.submit(task)
    fields = story.output(task, b"", None)
    (story.directory / fields["record"]).write_text(record)
    story.finish(task, Outcome.failed(Cause.ERROR, "no", **fields))
    assert "The task left no traceback." in error_file(story).read_text()
