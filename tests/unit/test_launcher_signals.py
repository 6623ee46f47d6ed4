"""The launcher's signals: who hears them, what is kept, and that all is as before afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from hsm_core.signals import Signals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def send(signum: signal.Signals) -> None:
    """Send this process a signal; it has been handled on return."""
    signal.raise_signal(signum)


@pytest.fixture
def signals() -> Iterator[Signals]:
    taken = Signals(lambda: True)
    taken.take()
    yield taken
    taken.give_back()


def test_a_listener_hears_them_and_nobody_else(signals: Signals) -> None:
    heard: list[int] = []
    with signals.heard_by(heard.append):
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGINT):
            send(signum)
    assert heard == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGINT]
    assert signals.give_back() == 0


def test_what_came_before_is_heard_first(signals: Signals, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[int] = []
    send(signal.SIGHUP)
    send(signal.SIGTERM)
    assert "SIGTERM: the sweep ends as soon as it can; once more ends at once" in capfd.readouterr().err
    with signals.heard_by(heard.append):
        send(signal.SIGINT)
    assert heard == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize(("second", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_that_nobody_hears_ends_the_process(signals: Signals, second: signal.Signals, code: int) -> None:
    send(signal.SIGTERM)
    assert signals.struck == 0
    with pytest.raises(SystemExit) as ended:
        send(second)
    assert (ended.value.code, signals.struck) == (code, second)


def test_what_nobody_heard_is_told_at_the_end(signals: Signals) -> None:
    send(signal.SIGHUP)
    send(signal.SIGTERM)
    assert signals.give_back() == signal.SIGTERM


def test_a_listener_that_raises_is_one_no_more(signals: Signals) -> None:
    def impatient(signum: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), signals.heard_by(impatient):
        send(signal.SIGTERM)
    send(signal.SIGTERM)
    assert signals.give_back() == signal.SIGTERM


def test_a_hangup_that_changed_nothing_is_not_told() -> None:
    signals, heard = Signals(lambda: False), list[int]()
    signals.take()
    with signals.heard_by(heard.append):
        send(signal.SIGHUP)
    signals.give_back()
    assert heard == []


def test_afterwards_all_is_as_before() -> None:
    before = [signal.getsignal(signum) for signum in ALL]
    signals = Signals(lambda: True)
    signals.take()
    assert all(signal.getsignal(signum) not in before for signum in ALL)
    signals.give_back()
    signals.give_back()
    assert [signal.getsignal(signum) for signum in ALL] == before


@pytest.mark.parametrize("signum", ALL)
def test_an_ignored_signal_stays_ignored(signum: signal.Signals) -> None:
    before = signal.signal(signum, signal.SIG_IGN)
    signals = Signals(lambda: True)
    try:
        signals.take()
        assert signal.getsignal(signum) is signal.SIG_IGN
        signals.give_back()
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_outside_the_main_thread_nothing_is_taken() -> None:
    before = [signal.getsignal(signum) for signum in ALL]
    signals = Signals(lambda: True)
    thread = threading.Thread(target=signals.take)
    thread.start()
    thread.join()
    assert [signal.getsignal(signum) for signum in ALL] == before
