"""`hsm journal repair`: a damaged journal ends with its last good line, and nothing of the rest is thrown away."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hsm_core import events as ev
from hsm_core.cli import hsm
from hsm_core.exceptions import JournalError
from hsm_core.journal import replay
from hsm_core.journal.repair import examine
from hsm_core.owner import current
from hsm_core.task import TaskState
from tests.unit.fake_source import FakeSource, Rig, tasks

if TYPE_CHECKING:
    from tests.unit.conftest import Story


def repair(*arguments: str, sweep: str = "latest") -> Result:
    return CliRunner().invoke(hsm, ["journal", "repair", sweep, *arguments])


@pytest.fixture
def path(story: Story) -> Path:
    """The journal of a sweep that completed three tasks."""
    story.begin()
    for value in (1, 2, 3):
        story.complete(f"x={value}", value=value)
    story.end()
    return story.directory / ".hsm" / "journal.jsonl"


def starts(content: bytes) -> list[int]:
    """Where the lines begin, and the end."""
    return [0, *(match.end() for match in re.finditer(b"\n", content))]


def parts(path: Path) -> bytes:
    """What the journal and the files of what was cut off hold together."""
    cut = sorted(path.parent.glob("journal.jsonl.torn-*"))
    return b"".join(file.read_bytes() for file in (path, *cut))


# --- what is refused, and where


def test_a_byte_overwritten_anywhere_in_a_line_is_told_with_the_offset_of_the_line(path: Path) -> None:
    content = path.read_bytes()
    begin, end = starts(content)[4:6]
    for position in range(begin, end):
        path.write_bytes(content[:position] + b"\0" + content[position + 1 :])
        with pytest.raises(JournalError, match=f":5: the line at byte {begin} is damaged.*hsm journal repair"):
            replay(path)
        damage = examine(path)
        assert damage is not None
        assert (damage.good.seq, damage.good.offset) == (4, begin)


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\n", b'{"seq":', b"{}\n"])
def test_a_block_overwritten_in_the_middle_is_told_and_cut_off(path: Path, filler: bytes) -> None:
    content = path.read_bytes()
    position, size = starts(content)[7] + 20, 512
    path.write_bytes(content[:position] + (filler * size)[:size] + content[position + size :])
    damaged = path.read_bytes()
    with pytest.raises(JournalError, match=f":8: the line at byte {starts(content)[7]} is damaged"):
        replay(path)
    assert repair("--yes").exit_code == 0
    assert path.read_bytes() == content[: starts(content)[7]]
    assert parts(path) == damaged
    assert (replay(path).seq, replay(path).torn) == (7, False)


def test_a_journal_cut_off_at_any_byte_is_whole_after_a_repair(path: Path) -> None:
    content = path.read_bytes()
    ends = starts(content)[1:]
    # The command itself at some of the offsets, at all others what it asks.
    for length in range(ends[0], len(content) + 1):
        path.write_bytes(content[:length])
        damage = examine(path)
        assert (damage is None) == (length in ends)
        if damage is not None:
            assert damage.good.offset == max(end for end in ends if end <= length)
            assert damage.good.state == replay(path).state
    for length in (ends[0] + 1, ends[3] - 1, len(content) - 1):
        path.write_bytes(content[:length])
        assert repair("--yes").exit_code == 0
        assert path.read_bytes() == content[: max(end for end in ends if end <= length)]


def test_the_command_which_the_error_names_works_word_for_word(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"garbage\n", *lines[6:]]))
    error = CliRunner().invoke(hsm, ["results", "latest"]).stderr
    found = re.search(r"`(hsm journal repair .*?)` keeps the 5 good lines", error)
    assert found is not None, error
    assert CliRunner().invoke(hsm, [*shlex.split(found[1])[1:], "--yes"]).exit_code == 0
    assert replay(path).seq == 5
    assert CliRunner().invoke(hsm, ["results", "latest"]).exit_code == 0


# --- the command


def test_it_shows_what_it_drops_and_keeps_that(path: Path) -> None:
    content = path.read_bytes()
    begin = starts(content)[6]
    path.write_bytes(content[:begin] + b"[" + content[begin + 1 :])
    result = repair("--yes")
    assert f"Line 7 of the journal, at byte {begin}, is damaged: it can't be read." in result.stderr
    assert "the 6 good lines before it" in result.stderr
    assert f"{len(content) - begin} bytes, among them 8 lines that can be read." in result.stderr
    assert "Only these tell how task_002, task_003 ended: `hsm complete` will run that again." in result.stderr
    assert f"What was dropped is in {path}.torn-1" in result.stdout
    assert {index: task.state for index, task in replay(path).state.tasks.items()} == {0: TaskState.COMPLETED}


def test_it_tells_programs_what_it_did(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    told = json.loads(repair("--yes", "--json").stdout)
    assert (told["damaged"], told["kept_lines"], told["dropped_records"]) == (True, 14, 0)
    assert told["kept_bytes"] + told["dropped_bytes"] == len(content) - 10
    assert Path(told["dropped_to"]).read_bytes() == content[told["kept_bytes"] : -10]
    assert json.loads(repair("--yes", "--json").stdout)["damaged"] is False


def test_a_whole_journal_is_left_as_it_is(path: Path) -> None:
    content = path.read_bytes()
    result = repair("--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "can be read to its end" in result.stdout
    assert path.read_bytes() == content


def test_without_a_terminal_nothing_is_done_unasked(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    content = path.read_bytes()
    result = repair()
    assert result.exit_code == 1
    assert "Line 15 of the journal" in result.stderr
    assert "Nothing was changed. To drop that, say --yes." in result.stderr
    assert path.read_bytes() == content
    owner = current(path.parent)
    assert owner is not None
    assert owner.released


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_it_asks(path: Path, answer: str) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    content = path.read_bytes()
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "hsm_core", "journal", "repair", str(path.parent.parent)]
    with subprocess.Popen(command, stdin=its, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        os.write(mine, f"{answer}\n".encode())
        told = process.communicate(timeout=60)[0]
    os.close(mine)
    os.close(its)
    assert b"Drop it? [y/N]" in told
    assert (process.returncode, path.read_bytes() == content) == ((0, False) if answer == "y" else (1, True))
    assert parts(path) == content


def test_the_journal_of_a_living_launcher_is_not_touched(story: Story) -> None:
    story.begin()
    story.complete("x=1")
    path = story.directory / ".hsm" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    content = path.read_bytes()
    result = repair("--yes")
    assert result.exit_code == 1
    assert f"is run by pid {os.getpid()}" in result.stderr
    assert path.read_bytes() == content


def test_what_is_no_damage_is_not_repaired(path: Path) -> None:
    newer = path.read_text().replace('"format":1', f'"format":{ev.FORMAT + 1}')
    path.write_text(newer)
    result = repair("--yes")
    assert result.exit_code == 1
    assert f"format {ev.FORMAT + 1}, written by hsm" in result.stderr
    assert path.read_text() == newer


def test_without_a_good_line_there_is_nothing_to_keep(path: Path) -> None:
    content = b"garbage\n" + path.read_bytes()
    path.write_bytes(content)
    result = repair("--yes")
    assert result.exit_code == 1
    assert "Start the sweep anew" in result.stderr
    assert path.read_bytes() == content


def test_a_repaired_sweep_goes_on(tmp_path: Path) -> None:
    with Rig(tmp_path, FakeSource("a")) as rig:
        rig.run(5)
        path = rig.journal_path
    lines = path.read_bytes().splitlines(keepends=True)
    torn = next(n for n, line in enumerate(lines) if re.search(rb'"attempt_submitted",.*"task":2,', line))
    path.write_bytes(b"".join([*lines[:torn], b"\0" * len(lines[torn]), *lines[torn + 1 :]]))
    assert repair("--yes", sweep=str(tmp_path)).exit_code == 0
    again = FakeSource("a")
    with Rig(tmp_path, again) as rig:
        left = [task for task in tasks(5) if rig.ended(task.index) is None]
        rig.run(left)
        assert [task.index for task in left] == [2, 3, 4]
        assert rig.count(TaskState.COMPLETED) == 5
