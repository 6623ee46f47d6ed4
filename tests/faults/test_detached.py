"""Launchers that no terminal holds: started, followed, cancelled and completed from others."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_core.owner import current
from hsm_core.remote.names import task_name
from hsm_core.task import TaskState
from hsm_core.testing import alive, wait_until

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

POINTS = "+x=range(6)"
SWEEP_FILE = """
app: app.py
overrides: [+gated=2]
sweep: {grid: {+x: "range(0,6)"}}
"""


class Commands(subprocess.Popen[str]):
    """A command of hsm that runs while the test does something."""

    def __init__(self, sweep: Sweep, *arguments: str) -> None:
        command = [sys.executable, "-m", "hsm_core", *arguments]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        super().__init__(command, cwd=sweep.folder, start_new_session=True, **streams)

    def __exit__(self, *failure: Any) -> None:
        if failure[0] is not None:  # or it would be waited for, which may take for ever
            self.kill()
        super().__exit__(*failure)


def run_detached(sweep: Sweep) -> dict[str, Any]:
    """`hsm run --detach` in the sweep's folder; what it told."""
    (sweep.folder / "sweep.yaml").write_text(SWEEP_FILE)
    told: dict[str, Any] = json.loads(sweep.hsm("run", "--detach", "--json"))
    sweep.directory, sweep.log = Path(told["directory"]), Path(told["log"])
    sweep.subdir = lambda index: f"tasks/{task_name(index)}"
    return told


def launcher_pid(sweep: Sweep) -> int:
    owner = current(sweep.directory / ".hsm")
    assert owner is not None
    return owner.pid


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not alive(pid), "the launcher to end")


def test_run_attach_and_finish(sweep: Sweep) -> None:
    told = run_detached(sweep)
    assert sweep.has_begun()
    assert launcher_pid(sweep) == told["pid"]
    assert os.getsid(told["pid"]) == told["pid"]
    log = Path(told["log"])
    assert (log.parent, stat.S_IMODE(log.stat().st_mode)) == (sweep.directory / ".hsm", 0o600)

    sweep.wait_for(3, "starts")
    with Commands(sweep, "attach", told["id"], "--interval", "0.05") as following:
        assert following.stdout is not None
        assert any("Source local started" in line for line in following.stdout)
        os.killpg(following.pid, signal.SIGINT)
        rest = following.stdout.read()
        assert following.wait(60) == 130
    assert f"hsm cancel {told['id']}" in rest

    with Commands(sweep, "attach", told["id"], "--interval", "0.05") as following:
        sweep.open_gate()
        said, _ = following.communicate(timeout=60)
    assert following.returncode == 0, said
    assert "finished (6 completed, 0 failed)" in said
    wait_for_end(told["pid"])
    sweep.audit()


def test_what_the_launcher_said_is_shown_where_the_sweep_did_not_begin(sweep: Sweep) -> None:
    (sweep.folder / "sweep.yaml").write_text(SWEEP_FILE)
    app = sweep.folder / "app.py"
    app.write_text("import sys\nif 'HSM_MARK' not in __import__('os').environ: sys.exit('no \\x1b licence')\n")
    said = sweep.hsm("run", "--detach", code=1)
    assert "no \\x1b licence" in said
    assert "The launcher ended with exit code 1 before the sweep began." in said
    app.write_text("import os\nos._exit(7)\n")
    sweep.hsm("run", "--detach", code=7)
    app.write_text("")
    assert "exit code 0 before the sweep began" in sweep.hsm("run", "--detach", code=1)
    assert list((sweep.folder / "sweeps" / "outputs").iterdir()) == []


def test_ctrl_c_before_the_sweep_has_begun_ends_the_launcher(sweep: Sweep) -> None:
    (sweep.folder / "sweep.yaml").write_text(SWEEP_FILE)
    (sweep.folder / "app.py").write_text(
        "import os, time\nopen('new', 'w').write(str(os.getpid()))\nos.rename('new', 'pid')\ntime.sleep(600)\n"
    )
    with Commands(sweep, "run", "--detach") as starting:
        wait_until((sweep.folder / "pid").exists, "the launcher to run")
        os.killpg(starting.pid, signal.SIGINT)
        assert starting.wait(60) != 0
    assert not alive(int((sweep.folder / "pid").read_text()))
    assert list((sweep.folder / "sweeps" / "outputs").iterdir()) == []


def test_sigterm_to_a_detached_launcher(sweep: Sweep) -> None:
    told = run_detached(sweep)
    sweep.wait_for(3, "starts")
    os.kill(told["pid"], signal.SIGTERM)
    wait_for_end(told["pid"])
    assert (sweep.state().status, sweep.state().active) == ("interrupted", 0)
    assert f"hsm complete {told['id']}" in sweep.hsm("attach", told["id"], code=143)
    sweep.audit()
    sweep.open_gate()
    sweep.hsm("complete", told["id"], "--detach")
    sweep.hsm("attach", told["id"])
    assert set(sweep.finished()) == set(range(6))
    wait_for_end(launcher_pid(sweep))
    sweep.audit()


def test_cancel_a_detached_launcher(sweep: Sweep) -> None:
    told = run_detached(sweep)
    sweep.wait_for(3, "starts")
    assert "the sweep is ending" in sweep.hsm("cancel", told["id"])
    assert "Interrupted: the sweep was cancelled by command" in sweep.hsm("attach", told["id"], code=1)
    wait_for_end(told["pid"])
    assert sweep.state().counts[TaskState.COMPLETED] == 2
    sweep.audit()
    assert "is not running" in sweep.hsm("cancel", told["id"], code=1)


def test_cancel_a_launcher_that_is_stopped(sweep: Sweep) -> None:
    """As by Ctrl-Z: it can't answer, and obeys when it goes on."""
    launcher = sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    launcher.send_signal(signal.SIGSTOP)
    wait_until(lambda: bool((owner := current(sweep.directory / ".hsm")) and owner.stopped), "the launcher to stop")
    advice = f"kill -CONT {launcher.pid}"
    assert advice in sweep.hsm("cancel", str(sweep.directory), code=1)
    launcher.send_signal(signal.SIGCONT)
    assert launcher.wait(60) == 1
    assert sweep.state().status == "interrupted"
    sweep.audit()


def test_cancel_and_attach_where_the_launcher_is_gone(sweep: Sweep) -> None:
    sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    with Commands(sweep, "attach", str(sweep.directory), "--interval", "0.05") as following:
        sweep.kill()
        said, _ = following.communicate(timeout=60)
    sweep_id = sweep.state().id
    assert (following.returncode, f"hsm complete {sweep_id} goes on with the sweep" in said) == (1, True)
    assert "is not running" in sweep.hsm("cancel", sweep_id, code=1)
    sweep.open_gate()
    sweep.hsm("complete", sweep_id, "--detach")
    sweep.hsm("attach", sweep_id)
    assert set(sweep.finished()) == set(range(6))
    wait_for_end(launcher_pid(sweep))
    sweep.audit()


def test_of_two_that_complete_at_once_one_does(sweep: Sweep) -> None:
    launcher = sweep.launch(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    sweep.kill()
    launcher.wait(60)
    both = [Commands(sweep, "complete", str(sweep.directory), "--detach") for _ in range(2)]
    said = [command.communicate(timeout=60)[0] for command in both]
    assert sorted(command.returncode for command in both) == [0, 1], said
    refused = said[0 if both[0].returncode else 1]
    assert "run by pid" in refused or "just being opened by another launcher" in refused
    assert list((sweep.directory / ".hsm").glob("*.new")) == []
    sweep.open_gate()
    sweep.hsm("attach", str(sweep.directory))
    wait_for_end(launcher_pid(sweep))
    sweep.audit()


def test_a_launcher_that_loses_its_terminal_is_followed_by_its_log(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = sweep.launch_on_terminal(POINTS, "+gated=2")
    sweep.wait_for(3, "starts")
    with Commands(sweep, "attach", str(sweep.directory), "--interval", "0.05") as following:
        assert following.stdout is not None
        assert any("Task task_003 started" in line for line in following.stdout), "told by the journal"
        os.close(terminal)
        assert any("goes on without its terminal" in line for line in following.stdout)
        sweep.open_gate()
        rest = following.stdout.read()
        assert following.wait(60) == 0
    assert "results: " in rest, "shown by the log"
    sweep.audit()
