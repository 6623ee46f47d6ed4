"""Starts of an element: each is made once, and an earlier one ends before a later one begins its work."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hsm_core.remote import process, starts
from hsm_core.testing import wait_until


def test_a_start_is_made_once(tmp_path: Path) -> None:
    path = str(tmp_path / "task_001.1.1")
    assert starts.begin(path, 0, again=True) == 0
    with pytest.raises(FileExistsError):
        starts.begin(path, 0, again=True)
    assert starts.begin(path, 2, again=True) == 2
    with pytest.raises(FileExistsError):
        starts.begin(path, 3, again=False)
    assert starts.begin(path, None, again=True) == 1
    assert starts.begin(path, None, again=True) == 3


def test_a_later_start_waits_for_the_end_of_the_one_before(tmp_path: Path) -> None:
    path = str(tmp_path / "task_001.1.1")
    for number in (0, 1):
        starts.begin(path, number, again=True)
    assert not starts.called_off(path, 0)
    later = threading.Thread(target=starts.take_over, args=(path, 1))
    later.start()
    wait_until(lambda: starts.called_off(path, 0), "the first start to be called off")
    assert later.is_alive()
    assert not starts.called_off(path, 1)
    (tmp_path / "task_001.1.1.0.ended").touch()
    later.join(10)
    assert not later.is_alive()


def test_a_start_whose_batch_is_gone_is_called_off(tmp_path: Path) -> None:
    assert starts.called_off(str(tmp_path / "gone" / "task_001.1.1"), 0)


def test_who_catches_a_signal() -> None:
    program = "import signal, sys; signal.signal(signal.SIGUSR2, print); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.catches(child.pid, signal.SIGUSR2)
        assert not process.catches(child.pid, signal.SIGUSR1)
        child.communicate()
    assert not process.catches(child.pid, signal.SIGUSR2)
