"""Commands get from another process to the launcher: whole, in order, once."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from hsm_core.control import Command, Spool, send


def control(hsm_dir: Path) -> list[str]:
    return sorted(os.listdir(hsm_dir / "control"))


def test_a_command_arrives_as_it_was_sent(tmp_path: Path) -> None:
    sent = send(tmp_path, "disable", source="server1", tasks=[1, 2], temporary=True, reason="ü\n")
    arguments = {"source": "server1", "tasks": [1, 2], "temporary": True, "reason": "ü\n"}
    assert Spool(tmp_path).poll() == [Command(sent, "disable", arguments)]


def test_there_is_nothing_before_the_first_command(tmp_path: Path) -> None:
    assert Spool(tmp_path).poll() == []
    assert os.listdir(tmp_path) == []


def test_commands_come_oldest_first_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    ids = [send(tmp_path, f"command{number}") for number in range(20)]
    assert ids == sorted(ids)
    assert [command.id for command in spool.poll()] == ids
    assert spool.poll() == []
    later = send(tmp_path, "later")
    assert [command.id for command in spool.poll()] == [later]


def test_a_command_that_is_done_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    send(tmp_path, "one")
    send(tmp_path, "two")
    one, two = spool.poll()
    spool.done(one)
    spool.done(one)
    assert control(tmp_path) == [f"{two.id}.json"]
    spool.done(two)
    assert control(tmp_path) == []
    assert spool.poll() == []


def test_what_one_launcher_did_not_finish_the_next_one_gets(tmp_path: Path) -> None:
    send(tmp_path, "one")
    first = Spool(tmp_path).poll()
    assert Spool(tmp_path).poll() == first


def test_a_command_that_is_half_written_is_not_seen(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    send(tmp_path, "one")
    (tmp_path / "control" / ".00000000000000000001-abcdef01.new").write_text('{"comm')
    assert [command.command for command in spool.poll()] == ["one"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\0",
        b"[]",
        b"{}",
        b'{"command": ""}',
        b'{"command": 3}',
        b'{"command": "x", "arguments": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_command_is_told_once_and_put_aside(tmp_path: Path, content: bytes) -> None:
    spool = Spool(tmp_path)
    good = send(tmp_path, "good")
    (tmp_path / "control" / "00-bad.json").write_bytes(content)
    bad, other = spool.poll()
    assert (bad.id, bad.command, other.id) == ("00-bad", "", good)
    assert bad.arguments["problem"].startswith("00-bad.json is no command: ")
    assert control(tmp_path) == ["00-bad.malformed", f"{good}.json"]
    spool.done(bad)
    assert (tmp_path / "control" / "00-bad.malformed").read_bytes() == content
    assert spool.poll() == []


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    good = send(tmp_path, "good")
    (tmp_path / "control" / "folder.json").mkdir()
    os.mkfifo(tmp_path / "control" / "pipe.json")
    assert [command.id for command in Spool(tmp_path).poll()] == [good]


def test_a_command_may_come_without_arguments(tmp_path: Path) -> None:
    send(tmp_path, "first")
    (tmp_path / "control" / "99.json").write_text(json.dumps({"command": "by hand"}))
    assert Spool(tmp_path).poll()[-1] == Command("99", "by hand", {})


def test_commands_are_the_users_own_and_nothing_else_is_left(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        sent = send(tmp_path, "one")
    finally:
        os.umask(old)
    assert control(tmp_path) == [f"{sent}.json"]
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "control" / f"{sent}.json").stat().st_mode) == 0o600


def test_arguments_that_are_no_json_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        send(tmp_path, "one", source=object())
    assert os.listdir(tmp_path) == []


def test_a_sweep_that_is_not_there_takes_no_commands(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        send(tmp_path / "gone", "one")


def send_many(hsm_dir: Path, sender: int) -> None:
    for number in range(50):
        send(hsm_dir, "count", sender=sender, number=number)


def test_commands_of_several_processes_arrive_whole_and_each_ones_in_order(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=send_many, args=(tmp_path, sender)) for sender in range(3)]
    for process in processes:
        process.start()
    spool = Spool(tmp_path)
    found: list[Command] = []
    while len(found) < 150:
        running = any(process.is_alive() for process in processes)
        new = spool.poll()
        for command in new:
            spool.done(command)
        found += new
        assert new or running, "the senders ended and their commands are not all there"
    for process in processes:
        process.join()
    assert all(command.command == "count" for command in found)
    for sender in range(3):
        numbers = [c.arguments["number"] for c in found if c.arguments["sender"] == sender]
        assert numbers == list(range(50))
    assert control(tmp_path) == []
