"""Signals to a launcher, at every stage of its sweep: what ends, what goes on, and that the journal tells it."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from hsm_core import events as ev
from hsm_core.journal import Tail
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

POINTS = "+x=range(8)"
ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]

WAIT = """
import os, time
def wait_here(name):
    open(name, "w").close()
    while not os.path.exists("gate"):
        time.sleep(0.02)
"""
IN_IMPORT = """
if "HSM_MARK" in os.environ:  # in the zygote, not in the launcher
    wait_here("here")
"""
WHILE_OPENING = """
if "HSM_MARK" not in os.environ:
    import hsm_core.payload
    freeze = hsm_core.payload.write
    hsm_core.payload.write = lambda *args: (wait_here("here"), freeze(*args))[1]
"""
WHILE_CLOSING = """
if "HSM_MARK" not in os.environ:
    import hsm_core.reports
    write = hsm_core.reports.write_reports
    hsm_core.reports.write_reports = lambda *args: (wait_here("here"), write(*args))[1]
"""
WHILE_STOPPING = """
if "HSM_MARK" not in os.environ:
    from hsm_core.sources.local import LocalSource
    stop, calls = LocalSource.stop, []
    def hang(self, timeout):
        calls.append(timeout)
        if len(calls) == 1:
            wait_here("here")
        stop(self, timeout)
    LocalSource.stop = hang
"""
THINKER = """
import os, time
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Thinker(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        self.launcher.launch([["+x=0"]], initial_job_idx=0)
        open("here", "w").close()
        while not os.path.exists("gate"):
            time.sleep(0.02)
        self.launcher.launch([["+x=1"]], initial_job_idx=1)

ConfigStore.instance().store(group="hydra/sweeper", name="thinker", node={"_target_": "hydra_plugins.thinker.Thinker"})
"""


def before_the_app(sweep: Sweep, code: str) -> None:
    """Have the app's program run this first."""
    app = sweep.folder / "app.py"
    app.write_text(WAIT + code + app.read_text())


def wait_here(sweep: Sweep) -> None:
    wait_until((sweep.folder / "here").exists, f"the launcher to get there; it said:\n{sweep.said()}")


def notes(sweep: Sweep) -> list[str]:
    told = Tail(sweep.directory / ".hsm" / "journal.jsonl").poll()
    return [entry.event.message for entry in told if isinstance(entry.event, ev.Note)]


def completes(sweep: Sweep) -> None:
    sweep.audit()
    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == set(range(8))
    sweep.audit()


@pytest.mark.parametrize(("signum", "code"), ENDING)
def test_one_signal_ends_everything_in_order(sweep: Sweep, signum: signal.Signals, code: int) -> None:
    launcher = sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    running = [sweep.pid(index) for index in (2, 3)]
    wait_until(lambda: len(sweep.finished()) == 2, "the first two tasks")
    sweep.signal_group(signum)
    assert launcher.wait(60) == code
    assert not any(alive(pid) for pid in running)
    state = sweep.state()
    assert (state.status, state.exit_code) == ("interrupted", code)
    assert (state.counts[TaskState.COMPLETED], state.active, state.counts[TaskState.FAILED]) == (2, 0, 0)
    assert f"hsm complete {state.id}" in sweep.said()
    completes(sweep)


def test_a_second_signal_ends_at_once(sweep: Sweep) -> None:
    before_the_app(sweep, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
    launcher = sweep.launch(POINTS, "+gated=0", "hydra.launcher.grace=600", "hydra.launcher.worker=spawn")
    sweep.wait_for(1, "starts")
    running = sweep.pid(1)
    sweep.signal_group(signal.SIGINT)
    wait_until(lambda: "once more ends at once" in sweep.said(), "the launcher to take note")
    sweep.signal_group(signal.SIGINT)
    assert launcher.wait(60) == 130
    sweep.wait_for_peace()
    assert not alive(running)
    assert {finding.kind for finding in sweep.findings()} == {"active"}, "nobody waited for their ends"
    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    sweep.audit()


def test_on_interrupt_detach_ends_what_no_source_runs_without_the_launcher(sweep: Sweep) -> None:
    launcher = sweep.launch(POINTS, "+gated=0", "hydra.launcher.on_interrupt=detach")
    sweep.wait_for(1, "starts")
    sweep.signal_group(signal.SIGINT)
    assert launcher.wait(60) == 130
    assert "no source of this sweep runs them without the launcher" in sweep.said()
    assert sweep.state().active == 0
    completes(sweep)


# --- SIGHUP


def test_a_closed_terminal_ends_nothing(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = sweep.launch_on_terminal(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    assert b"Source local started" in os.read(terminal, 65536)
    os.close(terminal)
    wait_until(lambda: len(notes(sweep)) == 1, "the launcher to take note")
    sweep.open_gate()
    assert sweep.launcher is not None
    assert sweep.launcher.wait(60) == 0
    log = sweep.directory / ".hsm" / "launcher_0001.log"
    assert notes(sweep) == [f"the launcher goes on without its terminal; what it prints goes to {log}"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    text = log.read_text()
    assert "finished (8 completed, 0 failed)" in text
    assert "\x1b" not in text
    for index in range(8):
        assert len(sweep.output(index, "starts").read_text().split()) == 1
    sweep.audit()


def test_sighup_to_the_group_of_a_launcher_without_a_terminal(sweep: Sweep) -> None:
    """There is nothing to be told: it goes on as before."""
    launcher = sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    for _ in range(2):
        sweep.signal_group(signal.SIGHUP)
        sweep.signal_group(signal.SIGCONT)
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert notes(sweep) == []
    assert "finished (8 completed, 0 failed)" in sweep.said()
    sweep.audit()


def test_a_launcher_without_a_terminal_is_still_interrupted(sweep: Sweep) -> None:
    terminal = sweep.launch_on_terminal(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    os.close(terminal)
    wait_until(lambda: len(notes(sweep)) == 1, "the launcher to take note")
    assert sweep.kill(signal.SIGTERM) == 143
    log = (sweep.directory / ".hsm" / "launcher_0001.log").read_text()
    assert f"To go on: hsm complete {sweep.state().id}" in log
    completes(sweep)


# --- before, between and after the tasks


@pytest.mark.parametrize(("signum", "code"), ENDING)
def test_a_signal_while_the_sources_start(sweep: Sweep, signum: signal.Signals, code: int) -> None:
    before_the_app(sweep, IN_IMPORT)
    launcher = sweep.launch(POINTS)
    wait_here(sweep)
    sweep.signal_group(signum)
    assert launcher.wait(60) == code
    assert sweep.state().status == "interrupted"
    completes(sweep)


def test_a_signal_while_the_sweep_is_opened(sweep: Sweep) -> None:
    before_the_app(sweep, WHILE_OPENING)
    launcher = sweep.launch(POINTS)
    wait_here(sweep)
    sweep.signal_group(signal.SIGHUP)
    sweep.signal_group(signal.SIGTERM)
    wait_until(lambda: "the sweep ends as soon as it can" in sweep.said(), "the launcher to take note")
    sweep.open_gate()
    assert launcher.wait(60) == 143
    assert (sweep.state().status, len(sweep.finished())) == ("interrupted", 0)
    completes(sweep)


def test_two_signals_while_the_sweep_is_opened(sweep: Sweep) -> None:
    """Then there is no sweep, and the directory is free."""
    before_the_app(sweep, WHILE_OPENING)
    launcher = sweep.launch(POINTS)
    wait_here(sweep)
    sweep.signal_group(signal.SIGINT)
    wait_until(lambda: "once more ends at once" in sweep.said(), "the launcher to take note")
    sweep.signal_group(signal.SIGINT)
    assert launcher.wait(60) == 130
    assert not (sweep.directory / ".hsm").exists()
    sweep.open_gate()
    assert sweep.launch(POINTS).wait(60) == 0, sweep.said()
    sweep.audit()


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_while_the_sweeper_thinks(sweep: Sweep, signals: int) -> None:
    (sweep.folder / "hydra_plugins").mkdir()
    (sweep.folder / "hydra_plugins" / "thinker.py").write_text(THINKER)
    launcher = sweep.launch("hydra/sweeper=thinker")
    wait_here(sweep)
    sweep.signal_group(signal.SIGHUP)
    sweep.signal_group(signal.SIGINT)
    wait_until(lambda: "once more ends at once" in sweep.said(), "the launcher to take note")
    if signals == 2:
        sweep.signal_group(signal.SIGINT)
    else:
        sweep.open_gate()
    assert launcher.wait(60) == 130, sweep.said()
    state = sweep.state()
    assert (state.status, state.exit_code, set(sweep.finished())) == ("interrupted", 130, {0})
    sweep.audit()
    sweep.open_gate()
    assert sweep.complete().wait(60) == 0, sweep.said()
    assert set(sweep.finished()) == {0, 1}


def test_a_signal_while_the_sweep_is_closed_waits_for_the_end(sweep: Sweep) -> None:
    before_the_app(sweep, WHILE_CLOSING)
    launcher = sweep.launch(POINTS)
    wait_here(sweep)
    sweep.signal_group(signal.SIGTERM)
    wait_until(lambda: "the sweep ends as soon as it can" in sweep.said(), "the launcher to take note")
    sweep.open_gate()
    assert launcher.wait(60) == -signal.SIGTERM
    assert sweep.state().status == "finished"
    assert (sweep.directory / "reports" / "results.csv").exists()
    sweep.audit()


def test_a_signal_while_the_sources_are_stopped_hurries_them(sweep: Sweep) -> None:
    before_the_app(sweep, WHILE_STOPPING)
    launcher = sweep.launch(POINTS)
    wait_here(sweep)
    sweep.signal_group(signal.SIGTERM)
    assert launcher.wait(60) == -signal.SIGTERM
    assert sweep.state().status == "finished"
    sweep.audit()
