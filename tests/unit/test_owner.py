"""One launcher owns a sweep; the next one takes it from a dead or finished one, or by force."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from hsm_core.exceptions import Superseded, SweepBusy
from hsm_core.owner import Owner, OwnerInfo, current

# A launcher: acquires, says how that went, and obeys the lines it is sent.
LAUNCHER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from hsm_core.exceptions import Superseded, SweepBusy
    from hsm_core.owner import Owner

    def tell(text):
        print(text, flush=True)

    owner = None
    for line in sys.stdin:
        try:
            if line.startswith("acquire"):
                owner = Owner.acquire(Path(sys.argv[1]), takeover="takeover" in line)
                tell(f"epoch {owner.epoch}")
            elif line.startswith("ready"):
                tell("ready")
            elif line.startswith("check"):
                owner.check()
                tell("mine")
            elif line.startswith("release"):
                owner.release()
                tell("released")
        except (SweepBusy, Superseded) as e:
            tell(type(e).__name__)
    """
)


class Launcher:
    """Another process that owns, or wants to own, a sweep."""

    def __init__(self, hsm_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(hsm_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()


@contextmanager
def launchers(hsm_dir: Path, count: int = 1) -> Iterator[list[Launcher]]:
    started = [Launcher(hsm_dir) for _ in range(count)]
    try:
        yield started
    finally:
        for launcher in started:
            launcher.process.kill()
            launcher.process.communicate()


@pytest.fixture
def hsm_dir(tmp_path: Path) -> Path:
    found = tmp_path / "sweep" / ".hsm"
    found.mkdir(parents=True)
    return found


def rewrite(hsm_dir: Path, epoch: int = 1, **changes: Any) -> None:
    """Change what an owner file says."""
    path = hsm_dir / f"owner_{epoch:04d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def info(hsm_dir: Path) -> OwnerInfo:
    found = current(hsm_dir)
    assert found is not None
    return found


def test_the_first_owner_has_epoch_1(hsm_dir: Path) -> None:
    assert current(hsm_dir) is None
    before = time.time()
    owner = Owner.acquire(hsm_dir)
    assert owner.epoch == 1
    found = info(hsm_dir)
    assert (found.host, found.pid, found.epoch) == (socket.gethostname(), os.getpid(), 1)
    assert (found.released, found.alive) == (False, True)
    assert before <= found.since <= time.time()
    owner.check()


def test_a_living_owner_is_named_with_host_pid_age_and_what_to_do(hsm_dir: Path) -> None:
    with launchers(hsm_dir) as [other]:
        assert other.ask("acquire") == "epoch 1"
        with pytest.raises(SweepBusy) as caught:
            Owner.acquire(hsm_dir)
        text = str(caught.value)
        for part in (str(hsm_dir.parent), f"pid {other.process.pid}", socket.gethostname(), "s)", "--takeover", "kill"):
            assert part in text
        assert other.ask("check") == "mine"
    assert info(hsm_dir).epoch == 1


def test_an_owner_that_released_is_succeeded(hsm_dir: Path) -> None:
    with launchers(hsm_dir) as [other]:
        assert other.ask("acquire") == "epoch 1"
        assert other.ask("release") == "released"
        assert other.ask("release") == "released"
        assert (info(hsm_dir).released, info(hsm_dir).alive) == (True, True)
        assert Owner.acquire(hsm_dir).epoch == 2


def test_a_killed_owner_is_succeeded_even_before_anyone_waited_for_it(hsm_dir: Path) -> None:
    with launchers(hsm_dir) as [other]:
        assert other.ask("acquire") == "epoch 1"
        other.process.kill()
        while psutil.Process(other.process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert info(hsm_dir).alive is False
        assert Owner.acquire(hsm_dir).epoch == 2


def test_a_dead_owner_is_succeeded(hsm_dir: Path) -> None:
    with launchers(hsm_dir) as [other]:
        assert other.ask("acquire") == "epoch 1"
    assert info(hsm_dir).alive is False
    assert Owner.acquire(hsm_dir).epoch == 2


def test_a_process_that_got_the_pid_of_a_dead_owner_is_not_the_owner(hsm_dir: Path) -> None:
    Owner.acquire(hsm_dir)
    record = json.loads((hsm_dir / "owner_0001.json").read_text())
    rewrite(hsm_dir, started=record["started"] - 3600, since_boot=record["since_boot"] - 3600)
    assert info(hsm_dir).alive is False
    assert Owner.acquire(hsm_dir).epoch == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its boots")
def test_a_process_with_the_pid_of_an_owner_from_before_a_reboot_is_not_the_owner(hsm_dir: Path) -> None:
    """Though it started as long after its boot: services do, at every boot."""
    Owner.acquire(hsm_dir)
    rewrite(hsm_dir, boot="5c1d9f3e-0000-4000-8000-000000000000")
    assert info(hsm_dir).alive is False


def test_an_owner_file_that_names_no_boot_is_read(hsm_dir: Path) -> None:
    Owner.acquire(hsm_dir)
    rewrite(hsm_dir, boot=None)
    assert info(hsm_dir).alive is True


@pytest.mark.parametrize("moved", ["started", "since_boot"])
def test_an_owner_stays_alive_when_the_clock_is_set(hsm_dir: Path, moved: str) -> None:
    Owner.acquire(hsm_dir)
    record = json.loads((hsm_dir / "owner_0001.json").read_text())
    rewrite(hsm_dir, **{moved: record[moved] + 86400})
    assert info(hsm_dir).alive is True
    with pytest.raises(SweepBusy):
        Owner.acquire(hsm_dir)


def test_an_owner_on_another_host_is_not_judged(hsm_dir: Path) -> None:
    Owner.acquire(hsm_dir)
    rewrite(hsm_dir, host="node\x1b7", pid=4711)
    assert info(hsm_dir).alive is None
    with pytest.raises(SweepBusy, match=r"pid 4711 on node\\x1b7, .*nobody can tell.*--takeover"):
        Owner.acquire(hsm_dir)
    assert Owner.acquire(hsm_dir, takeover=True).epoch == 2


def test_an_owner_on_another_host_that_released_is_succeeded(hsm_dir: Path) -> None:
    Owner.acquire(hsm_dir).release()
    rewrite(hsm_dir, host="node7")
    assert Owner.acquire(hsm_dir).epoch == 2


def test_a_stopped_owner_finds_itself_superseded_when_it_goes_on(hsm_dir: Path) -> None:
    with launchers(hsm_dir) as [first]:
        assert first.ask("acquire") == "epoch 1"
        first.process.send_signal(signal.SIGSTOP)
        os.waitpid(first.process.pid, os.WUNTRACED)  # returns once it has stopped
        with pytest.raises(SweepBusy):
            Owner.acquire(hsm_dir)
        second = Owner.acquire(hsm_dir, takeover=True)
        first.process.send_signal(signal.SIGCONT)
        assert first.ask("check") == "Superseded"
        assert first.ask("release") == "released"
        second.check()
        assert (info(hsm_dir).epoch, info(hsm_dir).released) == (2, False)


def test_being_superseded_is_told_with_the_file_that_proves_it(hsm_dir: Path) -> None:
    first = Owner.acquire(hsm_dir)
    Owner.acquire(hsm_dir, takeover=True)
    with pytest.raises(Superseded, match=r"owner_0002\.json.*epoch 1.*hsm monitor watch"):
        first.check()


@pytest.mark.parametrize("before", ["nothing", "released", "dead", "living and taken over"])
def test_of_many_launchers_at_once_one_wins(hsm_dir: Path, before: str) -> None:
    takeover = before.endswith("over")
    with launchers(hsm_dir, 9) as [last, *others]:
        if before != "nothing":
            assert last.ask("acquire") == "epoch 1"
        if before == "released":
            last.ask("release")
        if before == "dead":
            last.process.kill()
            last.process.wait()
        assert {other.ask("ready?") for other in others} == {"ready"}
        for other in others:
            other.say("acquire takeover" if takeover else "acquire")
        answers = [other.hear() for other in others]
        epochs = sorted(answer for answer in answers if answer != "SweepBusy")
        first = "epoch 1" if before == "nothing" else "epoch 2"
        if not takeover:
            assert epochs == [first]
        # Takeovers that don't meet succeed each other: the numbers are each given once, and the last one owns.
        assert len(set(epochs)) == len(epochs)
        states = [other.ask("check") for other, answer in zip(others, answers, strict=True) if answer != "SweepBusy"]
        assert states.count("mine") == 1
        assert states.count("Superseded") == len(epochs) - 1
        assert info(hsm_dir).epoch == len(epochs) + (before != "nothing")


def test_a_takeover_is_of_the_owner_seen_and_not_of_one_that_was_faster(
    hsm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Owner.acquire(hsm_dir)
    real = os.listdir
    answers: list[str] = []
    with launchers(hsm_dir) as [other]:

        def list_and_lose(path: Path) -> list[str]:
            names = real(path)
            if not answers:
                answers.append(other.ask("acquire takeover"))
            return names

        monkeypatch.setattr(os, "listdir", list_and_lose)
        with pytest.raises(SweepBusy, match=f"pid {other.process.pid} "):
            Owner.acquire(hsm_dir, takeover=True)
        assert answers == ["epoch 2"]
        assert other.ask("check") == "mine"


def test_a_listing_that_is_out_of_date_does_no_harm(hsm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Owner.acquire(hsm_dir).release()
    names = os.listdir(hsm_dir)
    Owner.acquire(hsm_dir).release()
    monkeypatch.setattr(os, "listdir", lambda path: names)
    assert Owner.acquire(hsm_dir).epoch == 3


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": "h"}', '{"host": "h", "pid": "x"}'])
def test_an_owner_file_without_content_is_not_passed_over(hsm_dir: Path, content: str) -> None:
    (hsm_dir / "owner_0001.json").write_text(content)
    found = info(hsm_dir)
    assert (found.host, found.pid, found.epoch, found.released, found.alive) == ("", 0, 1, False, None)
    with pytest.raises(SweepBusy, match=r"owner_0001\.json.*Try again in a moment.*--takeover"):
        Owner.acquire(hsm_dir)
    assert Owner.acquire(hsm_dir, takeover=True).epoch == 2


def test_only_the_highest_number_counts(hsm_dir: Path) -> None:
    for name in ("owner_0001.json", "owner_9999.json", ".owner_77777.json.new", "owner_88888.json.bak", "owner_x.json"):
        (hsm_dir / name).write_text("{}")
    assert info(hsm_dir).epoch == 9999
    assert Owner.acquire(hsm_dir, takeover=True).epoch == 10000
    assert info(hsm_dir).pid == os.getpid()


def test_the_files_are_the_users_own_and_nothing_else_is_left(hsm_dir: Path) -> None:
    old = os.umask(0)
    try:
        Owner.acquire(hsm_dir).release()
        Owner.acquire(hsm_dir)
    finally:
        os.umask(old)
    assert sorted(os.listdir(hsm_dir)) == ["owner_0001.json", "owner_0002.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in hsm_dir.iterdir()} == {0o600}


def test_an_owner_file_appears_with_its_content(hsm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def look_and_link(new: Path, path: Path) -> None:
        assert current(hsm_dir) is None
        real(new, path)
        assert info(hsm_dir).pid == os.getpid()

    monkeypatch.setattr(os, "link", look_and_link)
    assert Owner.acquire(hsm_dir).epoch == 1


def test_a_link_that_was_made_though_the_server_said_no_counts(hsm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(new: Path, path: Path) -> None:
        real(new, path)
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(os, "link", link)
    assert Owner.acquire(hsm_dir).epoch == 1


def test_where_files_can_not_be_linked_they_are_made_in_place(hsm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(new: Path, path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "link", link)
    owner = Owner.acquire(hsm_dir)
    assert (owner.epoch, info(hsm_dir).pid) == (1, os.getpid())
    with pytest.raises(SweepBusy):
        Owner.acquire(hsm_dir)
    owner.release()
    assert Owner.acquire(hsm_dir).epoch == 2
    assert sorted(os.listdir(hsm_dir)) == ["owner_0001.json", "owner_0002.json"]


def test_where_nothing_can_be_written_no_one_becomes_owner(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Owner.acquire(tmp_path / "gone")
    assert current(tmp_path / "gone") is None
