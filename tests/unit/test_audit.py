"""`hsm audit`: a sweep that is whole passes, and everything that is not as it must be is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hsm_core import events as ev
from hsm_core.cli import hsm
from hsm_core.remote.names import task_name
from hsm_core.task import Cause, Outcome, TaskState

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def leave(story: Story, task: int, number: int, status: str = "completed", **fields: object) -> Outcome:
    """Write the result record and the output directory of an attempt; returns its outcome."""
    record = Path(".hsm") / "results" / f"{task_name(task)}.{number}.1.json"
    folder = story.directory / str(task)
    for path in (folder, story.directory / record.parent):
        path.mkdir(exist_ok=True)
    facts = {"format": 1, "task": task, "attempt": number, "epoch": 1, "status": status, **fields}
    (story.directory / record).write_text(json.dumps(facts))
    cause = Cause(str(fields["cause"])) if status == "failed" else None
    return Outcome(TaskState(status), cause, record=str(record), output_dir=str(folder))


@pytest.fixture
def whole(story: Story) -> Story:
    """Three tasks: completed, failed, completed at the second attempt; the launcher is done."""
    story.begin()
    for task in range(3):
        story.submit(story.add(f"x={task}"))
    story.finish(0, leave(story, 0, 1))
    story.finish(1, leave(story, 1, 1, "failed", cause="error"))
    story.finish(2, Outcome.failed(Cause.LOST, "gone"), retry_in=0.0)
    story.submit(2)
    story.finish(2, leave(story, 2, 2))
    story.end()
    return story


def run(*options: str) -> Result:
    return CliRunner().invoke(hsm, ["audit", "latest", *options])


def findings() -> list[tuple[str, str]]:
    """Kind and place of every finding."""
    result = run("--json")
    told = json.loads(result.stdout)
    assert result.exit_code == (0 if told["clean"] else 1)
    assert told["clean"] == (not told["findings"])
    assert all(finding["problem"] and finding["advice"] for finding in told["findings"])
    return [(finding["kind"], finding["where"]) for finding in told["findings"]]


def test_a_sweep_that_is_whole_is_clean(whole: Story) -> None:
    assert findings() == []
    assert run().stdout == (
        "sweep_20260115_143022, 3 tasks: 2 completed, 1 failed, 0 left to run; "
        "3 result records; the journal tells what is there.\n"
    )


def test_tasks_that_were_left_in_order_are_no_fault(story: Story) -> None:
    story.begin()
    story.add("x=0")
    story.end("interrupted", "by SIGINT")
    assert findings() == []


def test_a_sweep_with_a_launcher_is_not_judged(story: Story) -> None:
    story.begin()
    result = run()
    assert result.exit_code == 1
    assert f"is run by pid {os.getpid()}" in result.stderr
    assert result.stdout == ""


def test_a_launcher_that_is_gone_leaves_work(story: Story) -> None:
    story.begin()
    for task in range(2):
        story.submit(story.add(f"x={task}"))
    leave(story, 1, 1)
    story.owner.release()
    with open(story.directory / ".hsm" / "journal.jsonl", "a") as journal:
        journal.write('{"seq":')
    found = [("torn", "journal"), ("no end", "journal"), ("active", "task_001"), ("active", "task_002")]
    assert findings() == found
    text = run().stdout
    assert "Go on with: hsm complete sweep_20260115_143022" in text
    assert "it left a result, which the journal does not tell" in text


def test_a_launcher_that_was_killed_while_it_closed_the_sweep_left_that_to_do(whole: Story) -> None:
    path = whole.directory / ".hsm" / "owner_0001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "released": False, "pid": 2**22 + 1}))
    assert findings() == [("not closed", "journal")]
    text = run().stdout
    assert "reports may be missing" in text
    assert "hsm complete sweep_20260115_143022" in text


def _lose_output(story: Story) -> None:
    (story.directory / "2").rmdir()


def _lose_record(story: Story) -> None:
    (story.directory / ".hsm/results/task_001.1.1.json").unlink()


def _spoil_record(story: Story) -> None:
    (story.directory / ".hsm/results/task_001.1.1.json").write_text('{"format": 1,')


def _change_record(story: Story) -> None:
    leave(story, 0, 1, "failed", cause="error")


def _late_record(story: Story) -> None:
    leave(story, 2, 1)


def _unknown_record(story: Story) -> None:
    leave(story, 7, 1)


def _pickle_without_record(story: Story) -> None:
    (story.directory / ".hsm/results/task_001.2.1.pkl").touch()


def _half_a_report(story: Story) -> None:
    (story.directory / "reports").mkdir()
    (story.directory / "reports" / "results.csv.new").touch()


def _half_an_owner(story: Story) -> None:
    (story.directory / ".hsm" / ".owner_0001.json.new").touch()


def _half_a_snapshot(story: Story) -> None:
    (story.directory / ".hsm" / "snapshot.part" / "project").mkdir(parents=True)


def _accept_twice(story: Story) -> None:
    story.tell(ev.AttemptFinished(0, 1, 1, "local", leave(story, 0, 1)))


def _owner_elsewhere(story: Story) -> None:
    path = story.directory / ".hsm" / "owner_0001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere", "released": False}))


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (_lose_output, [("no output", "task_003")]),
        (_lose_record, [("no record", "task_001")]),
        (_spoil_record, [("bad record", "task_001")]),
        (_change_record, [("other record", "task_001")]),
        (_late_record, [("late record", ".hsm/results/task_003.1.1.json")]),
        (_unknown_record, [("unknown record", ".hsm/results/task_008.1.1.json")]),
        (_pickle_without_record, [("half-written", ".hsm/results/task_001.2.1.pkl")]),
        (_half_a_report, [("half-written", "reports/results.csv.new")]),
        (_half_an_owner, [("half-written", ".hsm/.owner_0001.json.new")]),
        (_half_a_snapshot, [("half-written", ".hsm/snapshot.part")]),
        (_accept_twice, [("accepted twice", "task_001"), ("refused", "task_001.1.1")]),
        (_owner_elsewhere, [("owner", "journal")]),
    ],
    ids=lambda value: value.__name__.lstrip("_") if callable(value) else "",
)
def test_what_is_not_as_it_must_be_is_found(
    whole: Story, harm: Callable[[Story], None], found: list[tuple[str, str]]
) -> None:
    harm(whole)
    assert findings() == found


def test_what_tasks_write_is_theirs(whole: Story) -> None:
    (whole.directory / "0" / "model.tmp").touch()
    (whole.directory / ".hsm" / "snapshot" / "project").mkdir(parents=True)
    (whole.directory / ".hsm" / "snapshot" / "project" / "conf.new").touch()
    assert findings() == []


def test_a_task_that_was_run_again_on_request_is_accepted_again(whole: Story) -> None:
    whole.tell(ev.TaskReopened(1))
    whole.submit(1)
    whole.finish(1, leave(whole, 1, 2))
    whole.end()
    assert findings() == []


@pytest.fixture
def orphan(whole: Story) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "HSM_MARK": f"{whole.directory}:1:local"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as process:
        yield process
        process.kill()


def test_a_process_that_still_runs_is_named(orphan: subprocess.Popen[bytes]) -> None:
    assert findings() == [("process", f"pid {orphan.pid}")]
    assert f"end it with: kill {orphan.pid}" in run().stdout


def test_complete_does_what_a_launcher_was_killed_before_at_its_end(whole: Story) -> None:
    owner = whole.directory / ".hsm" / "owner_0001.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "pid": gone.pid, "released": False}))
    _half_an_owner(whole)
    _half_a_report(whole)
    with open(whole.directory / ".hsm" / "journal.jsonl", "a") as journal:
        journal.write('{"seq":')
    assert len(findings()) == 4
    done = CliRunner().invoke(hsm, ["complete", "latest"])
    assert (done.exit_code, "has nothing left to run" in done.stdout) == (0, True), done.output
    assert findings() == []
    assert (whole.directory / "reports" / "performance_analysis.yaml").exists()
    owners = sorted(path.name for path in owner.parent.glob("owner_*"))
    assert owners == ["owner_0001.json", "owner_0002.json"]
    assert CliRunner().invoke(hsm, ["complete", "latest"]).exit_code == 0
    assert sorted(path.name for path in owner.parent.glob("owner_*")) == owners, "one that was given back is let be"
