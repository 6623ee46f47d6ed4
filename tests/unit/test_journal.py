"""The journal: what is appended is replayed, a torn end is cut, damage is told, and a reader can follow."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core import events as ev
from hsm_core.exceptions import JournalError, SweepExists
from hsm_core.journal import Entry, Journal, Replay, Tail, replay, started
from hsm_core.state import SweepState, apply
from hsm_core.task import Outcome, TaskState

STARTED = ev.SweepStarted(
    id="sweep_20260115_143022",
    format=ev.FORMAT,
    hsm="0.1.0",
    python="3.11.7",
    hydra="1.3.2",
    cwd="/home/user/pröject",
    argv=("python", "train.py", "-m"),
    app="train.py",
    host="laptop",
    pid=4711,
)
HISTORY: list[ev.Event] = [
    STARTED,
    ev.SourceStarted("local", "local", 4, {"cores": 8}),
    ev.TasksPlanned(1),
    ev.TaskAdded(0, "k0", ("name='ü \U0001f600'",)),
    ev.AttemptSubmitted(0, 1, 1, "local"),
    ev.AttemptStarted(0, 1, 1, "local", host="laptop", pid=99, output_dir="/out/0"),
    ev.AttemptFinished(0, 1, 1, "local", Outcome(TaskState.COMPLETED, duration=1.25, return_value={"loss": 0.5})),
    ev.SweepFinished("finished"),
]

# With every kind of event that its first version knew, as that wrote it. It must stay readable.
FORMAT_1 = Path(__file__).with_name("journal_format_1.jsonl").read_text()

notes = st.builds(ev.Note, level=st.just("INFO"), message=st.text(max_size=20))
added = st.builds(
    ev.TaskAdded, task=st.integers(0, 9), key=st.just("k"), overrides=st.lists(st.text(max_size=5)).map(tuple)
)
histories = st.lists(notes | added, max_size=4).map(lambda later: [STARTED, *later])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, history: list[ev.Event]) -> SweepState:
    """Write a journal; the state that its writer had."""
    state = SweepState()
    with contextlib.closing(Journal.create(path)) as journal:
        for event in history:
            apply(state, event, journal.append(event))
    return state


def states(path: Path) -> list[SweepState]:
    """The state after each line of a journal; the first is the empty one."""
    found = [SweepState()]
    for entry in Tail(path).poll():
        state = SweepState()
        for earlier in Tail(path).poll()[: entry.seq]:
            assert earlier.event is not None
            apply(state, earlier.event, earlier.at)
        found.append(state)
    return found


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this: what fits is written, then comes an error, as from a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- writing and replaying


def test_a_replay_is_what_the_writer_knew(path: Path) -> None:
    live = write(path, HISTORY)
    assert replay(path) == Replay(live, len(HISTORY), path.stat().st_size, torn=False)
    assert live.tasks[0].state is TaskState.COMPLETED


def test_a_journal_of_format_1_is_still_read(path: Path) -> None:
    path.write_text(FORMAT_1)
    found = replay(path)
    assert all(entry.event is not None for entry in Tail(path).poll())
    assert (found.seq, found.torn, found.state.epoch, found.state.stale) == (22, False, 2, 1)
    assert [task.state for task in found.state.tasks.values()] == [TaskState.COMPLETED, TaskState.PENDING]
    outcome = found.state.tasks[0].outcome
    assert outcome is not None
    assert (outcome.return_value, outcome.record) == (0.5, ".hsm/results/task_001.1.1.json")
    assert found.state.started_at == datetime(2026, 1, 15, 14, 30, 22, 1, timezone.utc).timestamp()


def test_a_line_is_ascii_json_with_number_time_and_kind(path: Path) -> None:
    write(path, HISTORY)
    lines = path.read_bytes().decode("ascii").splitlines()
    for number, line in enumerate(lines, start=1):
        record = json.loads(line)
        assert list(record)[:3] == ["event", "seq", "t"]
        assert record["seq"] == number
        assert re.search(r',"t":\d{10}\.\d{6}[,}]', line)


def test_the_time_returned_is_the_time_replayed(path: Path) -> None:
    with contextlib.closing(Journal.create(path)) as journal:
        before = datetime.now(timezone.utc)
        times = [journal.append(event) for event in HISTORY]
        after = datetime.now(timezone.utc)
    assert [entry.at for entry in Tail(path).poll()] == times
    assert before.timestamp() - 1e-5 <= times[0] <= times[-1] <= after.timestamp()


def test_a_clock_that_jumps_back_changes_no_order(path: Path) -> None:
    path.write_text(FORMAT_1.replace("1768487425.", "946684799."))
    entries = Tail(path).poll()
    assert [entry.seq for entry in entries] == list(range(1, 23))
    assert entries[8].at < entries[7].at
    assert replay(path).state.tasks[0].state is TaskState.COMPLETED


def test_an_event_is_there_for_others_at_once(path: Path) -> None:
    journal = Journal.create(path)
    tail = Tail(path)
    for event in HISTORY:
        journal.append(event)
        assert [entry.event for entry in tail.poll()] == [event]
    journal.close()


def test_only_its_owner_may_read_it(path: Path) -> None:
    write(path, HISTORY)
    path.write_bytes(path.read_bytes() + b"{")
    old = os.umask(0)
    try:
        journal = Journal.open(path, replay(path))
    finally:
        os.umask(old)
    journal.close()
    assert journal.cut is not None
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, journal.cut)] == [0o600, 0o600]


def test_a_journal_is_never_created_over_another(path: Path) -> None:
    write(path, HISTORY)
    before = path.read_bytes()
    with pytest.raises(SweepExists, match=re.escape(str(path))):
        Journal.create(path)
    assert path.read_bytes() == before


def test_syncing_and_closing_may_be_repeated(path: Path) -> None:
    journal = Journal.create(path)
    journal.append(STARTED)
    journal.sync()
    journal.sync()
    journal.close()
    journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.append(STARTED)
    assert replay(path).seq == 1


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("not even this")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circular() -> Any:
    value: list[Any] = []
    value += [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([1.5, -math.inf], [1.5, "-inf"]),
        ({"a": (1, 2), 3: None}, {"a": [1, 2], "3": None}),
        ({("a", 1): math.nan, b"k": True}, {"['a', 1]": "nan", "k": True}),
        (b"bytes \xff\n", "bytes \\xff\n"),
        ("half \udcff of a pair", "half \udcff of a pair"),
        ("line\nfeed \x00 \u2028 \x1b]0;title\x07", "line\nfeed \x00 \u2028 \x1b]0;title\x07"),
        ("x" * 1_000_000, "x" * 1_000_000),
        (10**5000, hex(10**5000)),
        (Path("/out"), "/out"),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({3}, [3]),
        (Opaque(), "<test_journal.Opaque>"),
        (circular(), ["...", "..."]),
        ([[1]] * 200, [[1]] * 200),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_makes_a_line_that_can_be_read(path: Path, value: Any, read: Any) -> None:
    write(path, [STARTED, ev.SourceStarted("local", "local", 1, {"value": value}), ev.SourceUp("local")])
    assert path.read_bytes().count(b"\n") == 3
    found = replay(path)
    assert (found.seq, found.torn) == (3, False)
    assert found.state.sources["local"].facts == {"value": read}


@pytest.mark.parametrize("depth", [500, 100_000])
def test_nesting_that_no_reader_takes_is_cut(path: Path, depth: int) -> None:
    write(path, [STARTED, ev.SourceStarted("local", "local", 1, {"value": nested(depth)}), ev.SourceUp("local")])
    assert replay(path).seq == 3
    assert b'"..."' in path.read_bytes()


@given(value=st.recursive(st.floats() | st.binary() | st.text(st.characters()) | st.integers(), st.lists))
@settings(deadline=None, max_examples=100)
def test_every_value_makes_one_readable_line(value: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("sweep") / "journal.jsonl"
    write(path, [STARTED, ev.SourceStarted("local", "local", 1, {"value": value}), ev.Note("INFO", "after")])
    assert path.read_bytes().isascii()
    assert replay(path).seq == 3


def test_an_event_that_could_not_be_read_back_is_refused_before_it_is_written(path: Path) -> None:
    with contextlib.closing(Journal.create(path)) as journal:
        journal.append(STARTED)
        wrong: Any = "99"
        with pytest.raises(ValueError, match=r"'attempt_started' is not as it must be .*pid"):
            journal.append(ev.AttemptStarted(0, 1, 1, "local", pid=wrong))
        journal.append(ev.AttemptStarted(0, 1, 1, "local", pid=99))
    assert [entry.event for entry in Tail(path).poll()][1:] == [ev.AttemptStarted(0, 1, 1, "local", pid=99)]


# --- when the disk is full


def test_what_does_not_fit_leaves_no_half_line_and_fits_later(path: Path) -> None:
    with contextlib.closing(Journal.create(path)) as journal:
        journal.append(STARTED)
        size = path.stat().st_size
        for room in (0, 1, 40):
            with largest_file(size + room), pytest.raises(OSError, match="File too large") as caught:
                journal.append(ev.Note("INFO", "there is no room for this"))
            assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
            assert path.stat().st_size == size
        journal.append(ev.Note("INFO", "now there is"))
    assert [entry.event for entry in Tail(path).poll()] == [STARTED, ev.Note("INFO", "now there is")]


def test_a_half_line_that_could_not_be_removed_is_removed_before_the_next(path: Path, tmp_path: Path) -> None:
    with contextlib.closing(Journal.create(path)) as journal:
        journal.append(STARTED)
        # A descriptor that can neither be written nor cut short, for as long as the trouble lasts.
        fd = journal._fd
        good = os.dup(fd)
        other = os.open(tmp_path, os.O_RDONLY)
        os.dup2(other, fd, inheritable=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            journal.append(ev.Note("INFO", "lost"))
        os.write(good, b'{"seq":2,"t":"20')
        os.dup2(good, fd, inheritable=False)
        os.close(good)
        os.close(other)
        journal.append(ev.Note("INFO", "kept"))
    assert [entry.event for entry in Tail(path).poll()] == [STARTED, ev.Note("INFO", "kept")]


def test_a_signal_in_the_middle_of_an_append_leaves_the_journal_whole(path: Path) -> None:
    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    # The timer of processor time: pytest-timeout has the other one.
    old = signal.signal(signal.SIGPROF, interrupt)
    journal = Journal.create(path)
    journal.append(STARTED)
    done = 0
    try:
        for _ in range(100):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_PROF, 0.0005)
                while True:
                    journal.append(ev.Note("INFO", "x" * 200))
                    done += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    journal.append(ev.Note("INFO", "last"))
    journal.close()
    found = replay(path)
    assert not found.torn
    assert done + 2 <= found.seq <= done + 102


def test_after_a_failed_sync_nothing_more_is_taken(path: Path) -> None:
    journal = Journal.create(path)
    journal.append(STARTED)
    good = os.dup(journal._fd)
    pipe = os.pipe()
    os.dup2(pipe[1], journal._fd, inheritable=False)  # a pipe can't be synced
    with pytest.raises(OSError, match="Invalid argument"):
        journal.sync()
    os.dup2(good, journal._fd, inheritable=False)
    for fd in (good, *pipe):
        os.close(fd)
    with pytest.raises(OSError, match="resume the sweep"):
        journal.append(ev.SourceUp("local"))
    journal.close()
    assert replay(path).seq == 1


# --- torn ends


@given(history=histories)
@settings(deadline=None, max_examples=12)
def test_cut_anywhere_it_replays_to_a_prefix(history: list[ev.Event], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("sweep") / "journal.jsonl"
    write(path, history)
    content = path.read_bytes()
    ends = [match.end() for match in re.finditer(b"\n", content)]
    prefixes = states(path)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        if whole == 0:
            with pytest.raises(JournalError, match="missing or empty"):
                replay(path)
        else:
            assert replay(path) == Replay(prefixes[whole], whole, ends[whole - 1], torn=length not in ends)


def test_cut_anywhere_a_writer_goes_on_behind_the_last_good_line(path: Path) -> None:
    write(path, [STARTED, ev.SourceUp("local"), ev.Note("INFO", "ü")])
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first, len(content)):
        path.write_bytes(content[:length])
        found = replay(path)
        journal = Journal.open(path, found)
        journal.append(ev.Note("INFO", "on"))
        journal.close()
        again = replay(path)
        assert (again.seq, again.torn) == (found.seq + 1, False)
        if found.torn:
            assert journal.cut is not None
            assert journal.cut.read_bytes() == content[found.offset : length]
            journal.cut.unlink()
        else:
            assert journal.cut is None
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "rest",
    [
        b"\0" * 4096,
        b"\0" * 100 + b"\n",
        b'{"seq":9,"t":"2026-01-15T' + b"\0" * 500 + b"}\n" + b"\0" * 500,
        b"\xff\xfe garbage\nof several\nlines\n",
        b'{"seq":9',
        b"{}\n",
        b"17\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_garbage_at_the_end_is_cut(path: Path, rest: bytes) -> None:
    live = write(path, HISTORY)
    good = path.read_bytes()
    path.write_bytes(good + rest)
    found = replay(path)
    assert found == Replay(live, len(HISTORY), len(good), torn=True)
    journal = Journal.open(path, found)
    journal.close()
    assert journal.cut == path.with_name("journal.jsonl.torn-1")
    assert journal.cut.read_bytes() == rest
    assert path.read_bytes() == good


def test_every_cut_is_kept_under_a_name_of_its_own(path: Path) -> None:
    write(path, HISTORY)
    for number in (1, 2, 3):
        path.write_bytes(path.read_bytes() + b"part %d" % number)
        journal = Journal.open(path, replay(path))
        journal.close()
        assert journal.cut == path.with_name(f"journal.jsonl.torn-{number}")
        assert journal.cut.read_bytes() == b"part %d" % number


def test_what_a_killed_open_left_behind_is_removed(path: Path) -> None:
    write(path, HISTORY)
    path.with_name("journal.jsonl.0badcafe.new").write_bytes(b"half a copy")
    Journal.open(path, replay(path)).close()
    assert os.listdir(path.parent) == [path.name]


def test_a_disk_that_is_too_full_to_open_leaves_the_journal_as_it_is(path: Path) -> None:
    write(path, HISTORY)
    content = path.read_bytes()
    found = replay(path)
    with largest_file(len(content) - 1), pytest.raises(OSError, match="File too large"):
        Journal.open(path, found)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == content


def test_an_earlier_writer_that_wakes_up_reaches_nobody(path: Path) -> None:
    old = Journal.create(path)
    old.append(STARTED)
    old.append(ev.Note("INFO", "old"))
    tail = Tail(path)
    assert len(tail.poll()) == 2
    new = Journal.open(path, replay(path))
    new.append(ev.SweepResumed(2, "laptop", 4712))
    old.append(ev.Note("INFO", "late"))
    new.append(ev.Note("INFO", "new"))
    old.close()
    new.close()
    assert [entry.event for entry in tail.poll()] == [ev.SweepResumed(2, "laptop", 4712), ev.Note("INFO", "new")]
    assert (replay(path).seq, replay(path).torn) == (4, False)


def test_what_an_earlier_writer_added_since_the_replay_is_kept_aside(path: Path) -> None:
    old = Journal.create(path)
    old.append(STARTED)
    found = replay(path)
    old.append(ev.Note("INFO", "in between"))
    old.close()
    journal = Journal.open(path, found)
    journal.close()
    assert replay(path).seq == 1
    assert journal.cut is not None
    assert b"in between" in journal.cut.read_bytes()


def test_a_journal_that_shrank_since_its_replay_is_not_written(path: Path) -> None:
    write(path, HISTORY)
    found = replay(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(JournalError, match="became shorter"):
        Journal.open(path, found)
    assert os.listdir(path.parent) == [path.name]


# --- damage


@pytest.mark.parametrize(
    "bad", [b"garbage", b" ", b"\0" * 50, b'{"seq":3}', b'{"seq":3,"t":"","event":"note"}', b"\xff"]
)
def test_damage_in_the_middle_is_told_with_its_place_and_a_way_out(path: Path, bad: bytes) -> None:
    write(path, HISTORY)
    lines = path.read_bytes().splitlines(keepends=True)
    offset = len(lines[0] + lines[1])
    path.write_bytes(b"".join([*lines[:2], bad + b"\n", *lines[3:]]))
    with pytest.raises(JournalError) as caught:
        replay(path)
    assert str(caught.value).startswith(f"{path}:3: the line at byte {offset} is damaged: it can't be read")


@pytest.mark.parametrize(("whole", "damaged"), [(b"}\n{", b"}{"), (b"}\n{", b"} {"), (b'","seq"', b'",\n"seq"')])
def test_a_line_end_that_is_lost_or_too_many_is_damage(path: Path, whole: bytes, damaged: bytes) -> None:
    """Though every event is there as JSON, and a reader of the whole block could tell them apart."""
    write(path, HISTORY)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"".join(lines[2:]).replace(whole, damaged, 1)]))
    with pytest.raises(JournalError) as caught:
        replay(path)
    offset = len(lines[0] + lines[1])
    assert str(caught.value).startswith(f"{path}:3: the line at byte {offset} is damaged: it can't be read")


@pytest.mark.parametrize("more", ["", '{"event":"task_praised","seq":9,"t":1768487422.000001}\n'])
def test_an_empty_line_means_nothing(path: Path, more: str) -> None:
    """In a block that is read in one go, and in one that is read line by line."""
    state = write(path, HISTORY)
    lines = path.read_text().splitlines(keepends=True)
    more = more.replace('"seq":9', f'"seq":{len(lines) + 1}')
    path.write_text("".join([*lines[:2], "\n", *lines[2:], "\n", more]))
    found = replay(path)
    assert (found.seq, found.offset, found.torn) == (len(HISTORY) + bool(more), path.stat().st_size, False)
    assert found.state.tasks == state.tasks


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"seq":4,"t":1768487422.000001,"event":"source_up","source":"a"}', "seq is 4 where 3 must come"),
        ('{"seq":2,"t":1768487422.000001,"event":"source_up","source":"a"}', "seq is 2 where 3 must come"),
        ('{"seq":3,"t":1768487422.000001,"event":"source_up"}', "event 'source_up'.*source"),
        ('{"seq":3,"t":-1,"event":"source_up","source":"a"}', "event 'source_up'.*t"),
        ('{"seq":3,"t":1e400,"event":"source_up","source":"a"}', "event 'source_up'.*t"),
        (
            '{"seq":3,"t":1768487422.000001,"event":"attempt_finished","task":0,"attempt":1,"epoch":1,'
            '"source":"a","outcome":{}}',
            "event 'attempt_finished'",
        ),
        (
            '{"seq":3,"t":1768487422.000001,"event":"attempt_finished","task":0,"attempt":1,"epoch":1,'
            '"source":"a","outcome":7}',
            "event 'attempt_finished'",
        ),
        (
            '{"seq":3,"t":1768487422.000001,"event":"task_added","task":0,"key":"","overrides":1}',
            "task_added",
        ),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_record_that_can_not_be_is_told_wherever_it_stands(path: Path, line: str, why: str, last: bool) -> None:
    write(path, HISTORY)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], line + "\n", *([] if last else lines[3:])]))
    with pytest.raises(JournalError, match=f":3: the line at byte .* is damaged: .*{why}"):
        replay(path)
    with pytest.raises(JournalError, match=":3: the line at byte"):
        Tail(path).poll()


@given(position=st.integers(0, len(FORMAT_1) - 1), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=500)
def test_one_changed_byte_is_read_around_or_told(position: int, byte: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("sweep") / "journal.jsonl"
    content = bytearray(FORMAT_1.encode())
    content[position] = byte
    path.write_bytes(content)
    with contextlib.suppress(JournalError):
        found = replay(path)
        assert found.seq == 22 or (found.torn and position >= found.offset)


def test_a_journal_of_a_newer_format_names_both_versions(path: Path) -> None:
    write(path, [replace(STARTED, format=ev.FORMAT + 1, hsm="9.8.7")])
    for read in (replay, started, lambda p: Tail(p).poll()):
        with pytest.raises(JournalError, match=rf"format {ev.FORMAT + 1}, written by hsm 9\.8\.7.*format {ev.FORMAT}"):
            read(path)


def test_a_newer_format_is_told_even_if_its_first_event_looks_different(path: Path) -> None:
    path.write_text('{"seq":1,"t":1768487422.000001,"event":"sweep_started","format":2,"name":"x"}\n')
    with pytest.raises(JournalError, match="format 2"):
        replay(path)


@pytest.mark.parametrize("version", ['"format":0,', "", '"format":null,', '"format":"1",'])
def test_a_journal_without_a_format_is_damaged(path: Path, version: str) -> None:
    write(path, [STARTED])
    path.write_text(path.read_text().replace('"format":1,', version))
    with pytest.raises(JournalError, match=r":1: .* names no format"):
        replay(path)


def test_a_journal_begins_with_the_start_of_the_sweep(path: Path) -> None:
    write(path, [ev.SourceUp("local"), STARTED])
    with pytest.raises(JournalError, match=r":1: .*begins with 'sweep_started', this one with 'source_up'"):
        replay(path)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 10, b'{"seq":1'])
def test_a_journal_without_events_is_told(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    for read in (replay, started):
        with pytest.raises(JournalError, match="missing or empty: no task was run there"):
            read(path)


def test_an_event_of_a_later_version_is_passed_over_but_counted(path: Path) -> None:
    write(path, HISTORY)
    lines = path.read_text().splitlines(keepends=True)
    lines.insert(1, '{"seq":2,"t":1768487422.000001,"event":"task_praised","task":0}\n')
    renumbered = [re.sub(r'"seq":\d+', f'"seq":{number}', line) for number, line in enumerate(lines, start=1)]
    path.write_text("".join(renumbered))
    assert replay(path).seq == len(HISTORY) + 1
    assert replay(path).state.tasks[0].state is TaskState.COMPLETED
    assert Tail(path).poll()[1].event is None


def test_the_first_event_is_read_alone(path: Path) -> None:
    write(path, HISTORY)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + b"garbage\n" * 3)
    assert started(path) == STARTED


# --- following


@given(history=histories, cuts=st.lists(st.integers(0, 2000), max_size=8))
@settings(deadline=None, max_examples=100)
def test_a_reader_gets_each_line_once_however_the_bytes_arrive(
    history: list[ev.Event], cuts: list[int], tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    write(folder / "whole", history)
    content = (folder / "whole").read_bytes()
    tail = Tail(folder / "journal.jsonl")
    assert tail.poll() == []
    found: list[Entry] = []
    for length in [*sorted(cuts), len(content)]:
        (folder / "journal.jsonl").write_bytes(content[:length])
        found += tail.poll()
        assert len(found) == content[:length].count(b"\n")
    assert [entry.event for entry in found] == history
    assert [entry.seq for entry in found] == list(range(1, len(history) + 1))
    assert tail.poll() == []


def test_a_reader_may_start_behind_a_replay(path: Path) -> None:
    write(path, HISTORY)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    tail = Tail(path, replay(path))
    assert tail.poll() == []
    path.write_bytes(content)
    assert [entry.event for entry in tail.poll()] == [HISTORY[-1]]


def test_a_reader_waits_for_bytes_that_are_not_there_yet(path: Path) -> None:
    # So NFS shows a file whose later bytes arrived before the earlier ones.
    write(path, HISTORY)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    start = len(b"".join(lines[:3])) + 5
    path.write_bytes(content[:start] + b"\0" * 20 + content[start + 20 :])
    tail = Tail(path)
    assert [entry.seq for entry in tail.poll()] == [1, 2, 3]
    assert tail.poll() == []
    path.write_bytes(content)
    assert [entry.event for entry in tail.poll()] == HISTORY[3:]


def test_a_reader_tells_damage_and_a_journal_that_became_another(path: Path) -> None:
    write(path, HISTORY)
    content = path.read_bytes()
    tail = Tail(path)
    tail.poll()
    path.write_bytes(content[:-5])
    with pytest.raises(JournalError, match="became shorter"):
        tail.poll()
    path.write_bytes(content.replace(b'"tasks_planned"', b'"tasks_planned'))
    with pytest.raises(JournalError, match=":3: the line at byte"):
        Tail(path).poll()


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from hsm_core import events as ev
    from hsm_core.journal import Journal

    journal = Journal.create(Path(sys.argv[1]))
    journal.append(ev.SweepStarted("s", ev.FORMAT, "0", "3", "1", "/", (), "a", "h", 1))
    number = 0
    while number < int(sys.argv[2]):
        journal.append(ev.Note("INFO", str(number)))
        number += 1
    journal.close()
    """
)


def writer(path: Path, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(count)])


def test_a_reader_follows_a_writer_in_another_process(path: Path) -> None:
    process = writer(path, 5000)
    tail = Tail(path)
    found: list[Entry] = []
    while len(found) < 5001:
        ended = process.poll() is not None
        new = tail.poll()
        found += new
        assert new or not ended, "the writer ended and its lines are not all there"
    assert process.wait() == 0
    assert [entry.event for entry in found[1:]] == [ev.Note("INFO", str(number)) for number in range(5000)]


def test_a_killed_writer_leaves_a_journal_to_go_on_with(path: Path) -> None:
    process = writer(path, 10**6)  # it must end by itself should this test be killed
    tail = Tail(path)
    seen = 0
    while seen < 500:
        assert process.poll() is None
        seen += len(tail.poll())
    process.kill()
    process.wait()
    found = replay(path)
    assert found.seq >= seen
    journal = Journal.open(path, found)
    journal.append(ev.Note("INFO", "on"))
    journal.close()
    assert (replay(path).seq, replay(path).torn) == (found.seq + 1, False)
