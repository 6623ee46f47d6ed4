"""Locks on GPUs: shares, turns, deaths, other users, and files that are not what they seem."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_core.remote import leases
from hsm_core.remote.gpus import GpuError
from hsm_core.remote.leases import Lease, capacity, check

NOBODY = 65534

HOLDER = """
import os, sys
from hsm_core.remote.leases import Lease

user, device, per_task = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
print(Lease([device], per_task).take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def device() -> Iterator[Callable[[], str]]:
    """Makes up devices that nobody else on this host has; their real lock files are removed at the end."""
    made: list[str] = []

    def make() -> str:
        made.append(f"GPU-{uuid.uuid4()}")
        return made[-1]

    yield make
    for name in made:
        for path in (file_of(name), Path(f"{file_of(name)}.target")):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)


def file_of(device: str) -> Path:
    return Path(leases._folder(), f"hsm-gpu-{device}.lock")


def give_back(lease: Lease) -> None:
    """What the kernel does when the processes of a lease have ended."""
    for fd in lease.descriptors:
        os.close(fd)


@contextmanager
def held(device: str, per_task: float = 1, user: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another process, of another user perhaps, that holds a lease."""
    arguments = map(str, (user, device, per_task))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process


def test_a_device_is_leased_once(device: Callable[[], str]) -> None:
    name = device()
    first, second = Lease([name], 1), Lease([name], 1)
    assert first.take()
    assert not second.take()
    assert (first.devices, len(first.descriptors)) == ([name], 1)
    give_back(first)
    assert second.take()
    give_back(second)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ([0.5, 0.5, 0.5], [True, True, False]),
        ([0.5, 1], [True, False]),
        ([1, 0.001], [True, False]),
        ([0.3, 0.5, 0.2, 0.001], [True, True, True, False]),
        ([1 / 3, 1 / 3, 1 / 3, 0.01], [True, True, True, False]),
        ([0.25] * 5, [True] * 4 + [False]),
    ],
)
def test_shares_of_a_device(device: Callable[[], str], asked: list[float], got: list[bool]) -> None:
    name = device()
    all_of_them = [Lease([name], per_task) for per_task in asked]
    assert [lease.take() for lease in all_of_them] == got
    for lease in all_of_them:
        give_back(lease)


def test_a_share_fits_where_one_was_given_back(device: Callable[[], str]) -> None:
    name = device()
    shares = [Lease([name], 0.3) for _ in range(3)]
    assert all(share.take() for share in shares)
    give_back(shares[1])
    wide, narrow = Lease([name], 0.4), Lease([name], 0.3)
    assert not wide.take()
    give_back(wide)
    assert narrow.take()
    for lease in (shares[0], shares[2], narrow):
        give_back(lease)


def test_several_devices_or_none(device: Callable[[], str]) -> None:
    names = [device() for _ in range(3)]
    one, two = Lease([names[1]], 1), Lease(names, 2)
    assert one.take()
    assert two.take()
    assert two.devices == [names[0], names[2]]
    more = Lease(names, 2)
    assert not more.take()
    give_back(two)
    give_back(more)
    every = Lease(names, 3)
    assert not every.take()
    give_back(every)
    free = Lease(names, 2)
    assert free.take(), "whoever gets no lease keeps nothing"
    give_back(free)
    give_back(one)


def test_first_come_first_served(device: Callable[[], str]) -> None:
    """The sweep that gives a GPU back asks for it again at once; the one that has waited is first all the same."""
    name = device()
    holder, first, second = Lease([name], 1), Lease([name], 1), Lease([name], 1)
    assert holder.take()
    assert not second.take()
    assert not first.take()
    give_back(holder)
    again = Lease([name], 1)
    assert not again.take()
    assert not second.take()
    assert first.take()
    give_back(first)
    assert not again.take()
    assert second.take()
    give_back(second)
    assert again.take()
    give_back(again)


def test_who_needs_many_is_not_passed_by(device: Callable[[], str]) -> None:
    names = [device(), device()]
    left, right = Lease(names, 1), Lease(names, 1)
    assert left.take()
    assert right.take()
    both, one = Lease(names, 2), Lease(names, 1)
    assert not both.take()
    give_back(left)
    assert not both.take()
    assert not one.take(), "the first device is kept for who needs both"
    give_back(right)
    assert both.take()
    assert not one.take()
    give_back(both)
    assert one.take()
    give_back(one)


def test_who_waits_for_other_devices_is_not_in_the_way(device: Callable[[], str]) -> None:
    busy, free = device(), device()
    holder, waiting, other = Lease([busy], 1), Lease([busy], 1), Lease([busy, free], 1)
    assert holder.take()
    assert not waiting.take()
    assert other.take()
    assert other.devices == [free]
    for lease in (holder, waiting, other):
        give_back(lease)


def test_no_devices_for_a_task_that_needs_none() -> None:
    lease = Lease([], 0)
    assert lease.take()
    assert (lease.devices, lease.descriptors) == ([], [])


@pytest.mark.parametrize("waits", [False, True])
def test_a_killed_process_gives_back(device: Callable[[], str], waits: bool) -> None:
    name = device()
    lease = Lease([name], 1)
    with held(name) as process:
        if waits:
            assert not lease.take()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert lease.take()
    give_back(lease)


def test_how_many_tasks_fit() -> None:
    assert [capacity(4, n) for n in (1, 2, 3, 4, 5)] == [4, 2, 1, 1, 0]
    assert [capacity(2, share) for share in (0.5, 0.25, 0.3, 0.34, 0.1, 0.0001)] == [4, 8, 6, 4, 20, 2000]


# --- other users


@pytest.fixture
def other_user() -> int:
    if os.getuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("these tests act as two users, and have to run as root in CI")
        pytest.skip("acts as two users: run as root")
    return NOBODY


@pytest.mark.parametrize("first", [0, NOBODY])
def test_users_respect_each_other(device: Callable[[], str], other_user: int, first: int) -> None:
    name = device()
    before = os.umask(0o077)
    try:
        with held(name, 0.5, user=first):
            assert file_of(name).stat().st_uid == first
            whole, half = Lease([name], 1), Lease([name], 0.5)
            assert not whole.take()
            give_back(whole)
            with held(name, 0.5, user=other_user - first):
                assert not half.take()
            assert half.take()
            give_back(half)
    finally:
        os.umask(before)


def test_a_file_that_its_owner_keeps_to_himself(device: Callable[[], str], other_user: int) -> None:
    name = device()
    file_of(name).touch(mode=0o600)
    code = f"import os, hsm_core.remote.leases as l; os.setuid({other_user}); l.check([{name!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        f"{file_of(name)}, by which users of this host share a GPU, can't be opened: Permission denied; "
        f"have it removed by its owner or root"
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.symlink_to(f"{path}.target"), "can't be opened: it is a symbolic link"),
        (lambda path: path.mkdir(), "can't be opened: Is a directory"),
        (lambda path: os.mkfifo(path), "is no regular file"),
    ],
    ids=["symlink", "directory", "fifo"],
)
def test_what_stands_in_the_place_of_a_file_is_refused(
    device: Callable[[], str], make: Callable[[Path], None], why: str
) -> None:
    name = device()
    path = file_of(name)
    make(path)
    with pytest.raises(GpuError) as caught:
        check([name])
    assert str(caught.value).startswith(f"{path}, by which users of this host share a GPU, {why}; ")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(GpuError):
        Lease([device(), name], 1)
    assert os.listdir("/proc/self/fd") == before, "a slot that fails so goes on to other attempts"
    assert not Path(f"{path}.target").exists()


def test_names_of_devices_lead_to_no_other_folder(device: Callable[[], str]) -> None:
    name = device()
    check([f"../{name}/7/0"])
    path = file_of(f".._{name}_7_0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    path.unlink()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders in which others could remove our files, and a link to a third in which they can't."""
    for name, mode in (("sticky", 0o1777), ("open", 0o777), ("private", 0o1755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to(tmp_path / "sticky")
    monkeypatch.setattr(leases, "FOLDERS", [str(tmp_path / name) for name in ("none", "open", "private", "link")])
    return tmp_path / "sticky"


def test_no_folder_that_could_be_turned_against_others(folders: Path) -> None:
    with pytest.raises(GpuError, match="none is a folder of root's to which everybody may write"):
        check(["0"])


def test_the_folder_that_all_users_share(folders: Path, other_user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FOLDERS", [*leases.FOLDERS, str(folders)])
    check(["0"])
    assert [path.name for path in folders.iterdir()] == ["hsm-gpu-0.lock"]
    os.chown(folders, other_user, other_user)
    with pytest.raises(GpuError):
        check(["0"])
