"""A file of output that has become too long is cut where it lies."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hsm_core.remote.output import TAIL, Output

LIMIT = 1 << 20
MARK = f"\n[hsm: output truncated at {LIMIT // 2} bytes; what came between is left out]\n".encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for name in ("stdout.log", "stderr.log"):
        (tmp_path / name).touch()
    return tmp_path / "stdout.log"


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %07d\n" % number for number in range(first, last))


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as f:
        f.write(data)


def test_up_to_the_limit_nothing_is_cut(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    append(log, bytes(LIMIT))
    output.close()
    assert log.read_bytes() == bytes(LIMIT)


def test_the_beginning_and_the_latest_lines_stay(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    all_of_it = lines(0, 200_000)
    append(log, all_of_it)
    output.check()
    head, tail = log.read_bytes().split(MARK)
    assert head == all_of_it[: LIMIT // 2]
    assert all_of_it.endswith(tail)
    assert tail.startswith(b"line ")
    assert TAIL - 13 < len(tail) <= TAIL


def test_what_is_written_while_a_cut_is_prepared_is_kept(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(str(log.parent), LIMIT)
    append(log, lines(0, 200_000))
    write, left = os.pwrite, [b"before the end\n", b"the end\n"]

    def while_the_task_writes(file: int, data: bytes, offset: int) -> int:
        if left:
            append(log, left.pop(0))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", while_the_task_writes)
    output.close()
    assert log.read_bytes().endswith(lines(199_999, 200_000) + b"before the end\nthe end\n")
    assert log.read_bytes().count(MARK) == 1


def test_what_is_written_behind_a_cut_is_kept_and_the_beginning_stays(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    with open(log, "ab", buffering=0) as writer:
        writer.write(lines(0, 200_000))
        output.check()
        writer.write(lines(200_000, 200_003))
        assert log.read_bytes().endswith(lines(199_990, 200_003))
        writer.write(lines(200_003, 400_000))
        output.check()
        output.check()
    output.close()
    head, tail = log.read_bytes().split(MARK)
    assert head == lines(0, 200_000)[: LIMIT // 2]
    assert tail == lines(400_000 - tail.count(b"\n"), 400_000)


def test_a_line_without_an_end_is_cut_too(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    append(log, b"x" * 50_000_000)
    output.close()
    assert log.read_bytes() == b"x" * (LIMIT // 2) + MARK + b"x" * TAIL


def test_both_streams_have_the_limit(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    append(log.with_name("stderr.log"), bytes(2 * LIMIT))
    output.close()
    assert log.with_name("stderr.log").stat().st_size < LIMIT
    assert log.stat().st_size == 0


def test_a_file_that_took_the_place_of_the_log_is_not_touched(log: Path) -> None:
    output = Output(str(log.parent), LIMIT)
    append(log, bytes(2 * LIMIT))
    log.rename(log.with_name("moved"))
    log.write_bytes(bytes(3 * LIMIT))
    output.close()
    assert log.read_bytes() == bytes(3 * LIMIT)
    assert log.with_name("moved").stat().st_size < LIMIT


@pytest.mark.parametrize("kind", ["link", "pipe", "nothing"])
def test_what_is_no_file_is_left_alone(log: Path, kind: str) -> None:
    other = log.with_name("other")
    other.write_bytes(bytes(2 * LIMIT))
    log.unlink()
    if kind == "link":
        log.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(log)
    output = Output(str(log.parent), LIMIT)
    output.close()
    assert other.read_bytes() == bytes(2 * LIMIT)


def test_under_a_writer_no_line_is_torn_but_at_the_cuts(log: Path) -> None:
    """Of what was written between two cuts nothing gets out of order, and the last line is there."""
    output, count = Output(str(log.parent), LIMIT), 300_000

    def write() -> None:
        with open(log, "ab", buffering=0) as f:
            for first in range(0, count, 10):
                f.write(lines(first, first + 10))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        output.check()
    writer.join()
    append(log, lines(count, count + 1))
    output.close()
    head, tail = log.read_bytes().split(MARK)
    assert head == lines(0, 200_000)[: LIMIT // 2]
    numbers = [int(line.removeprefix(b"line ")) for line in tail.splitlines()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == count
