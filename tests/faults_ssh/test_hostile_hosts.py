"""Hosts that lie: what they say is refused in clear words, nothing of it harms the launcher or other sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core.events import AttemptFinished, Note, SourceDisabled
from hsm_core.testing import wait_until
from tests.faults_ssh import liar
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome

MakeLiars = Callable[..., FarSweep]


@pytest.fixture
def make_liars(make_far: MakeFar, make_host: MakeHost, ssh_home: SshHome, far_python: Path) -> MakeLiars:
    """Makes a sweep with a source for each of these lies, of one slot each, and an honest one here."""
    ssh_host = make_host({"MaxStartups": "100"})  # they all log in at once
    ssh_home.trust(ssh_host)
    folder = ssh_host.folder / "liars"
    folder.mkdir()
    program = folder / "liar.py"
    program.write_text(f"#!{far_python}\n{Path(liar.__file__).read_text()}")
    program.chmod(0o755)

    def make(*lies: str, trusted: bool = False) -> FarSweep:
        for lie in lies:
            (folder / lie).symlink_to(program)
        fields = {"max_parallel_tasks": 1, "trusted": trusted}
        return make_far({lie: (ssh_host, {"python": str(folder / lie), **fields}) for lie in lies}, local=1)

    return make


def finish(far: FarSweep, ssh_home: SshHome) -> None:
    """Let the honest source run what is left."""
    (ssh_home.folder / "gate").touch()
    launcher = far.launcher
    assert launcher is not None
    assert launcher.wait(60) == 0, far.said()


LIES = {
    "boot": ["boot_numbers", "boot_nothing", "boot_deep", "boot_list", "boot_setup"],
    "hello": ["hello_deep", "hello_list", "hello_utf8", "hello_infinite", "ready_strange", "ready_unusable"],
}


def disabled(far: FarSweep) -> dict[str, str]:
    """The sources that were disabled, and why."""
    return {event.source: event.reason for event in far.heard(SourceDisabled)}


@pytest.mark.parametrize("group", LIES)
def test_the_greeting(group: str, make_liars: MakeLiars, ssh_home: SshHome) -> None:
    lies = LIES[group]
    far = make_liars(*lies)
    far.launch("+x=range(4)", "+gated=0")
    wait_until(lambda: disabled(far).keys() == {*lies}, f"the end of all\n{far.said()}")
    finish(far, ssh_home)
    assert all(len(reason) < 1000 for reason in disabled(far).values())
    # None came to grief earlier than it was to.
    assert all(("our program there" in reason) == (group == "boot") for reason in disabled(far).values())
    assert "Traceback" not in far.said()
    far.assert_done_once(4)


def test_lines_that_are_no_word_of_an_agent(make_liars: MakeLiars, ssh_home: SshHome) -> None:
    far = make_liars(*liar.RAW)
    far.launch(f"+x=range({2 * len(liar.RAW)})", "+gated=0", "hydra.launcher.retry.lost=1000")
    wait_until(lambda: disabled(far).keys() == {*liar.RAW}, f"the end of all\n{far.said()}")
    finish(far, ssh_home)
    assert {event.source for event in far.heard(Note) if "can't be understood" in event.message} == {*liar.RAW}
    assert "\x1b]0;" not in far.said()
    assert "Traceback" not in far.said()


def of(far: FarSweep, source: str) -> set[str]:
    """How the attempts on a source ended."""
    ends = (event for event in far.heard(AttemptFinished) if event.source == source)
    return {event.outcome.cause.value if event.outcome.cause else "completed" for event in ends}


def files(folder: Path) -> set[str]:
    """All below a folder but what hsm has there for itself, and what is of tasks."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".hsm" not in path.parts}


def test_what_is_said_of_attempts(make_liars: MakeLiars, ssh_home: SshHome) -> None:
    """Nothing is written but into the directories of tasks, each by one source only."""
    far = make_liars(*liar.FOLDERS, *liar.RECORDS)
    others = sorted(path.name for path in Path("/etc").iterdir())
    beside = files(far.folder)
    # Many: those that answer first must not take all of them.
    far.launch(f"+x=range({6 * len(far.hosts)})", "+gated=0", "hydra.launcher.retry.lost=1000")
    wait_until(lambda: all(of(far, lie) for lie in far.hosts), f"the lies of all\n{far.said()}")
    finish(far, ssh_home)
    assert all(of(far, lie) == {"lost"} for lie in ("others_record", "record_numbers", "record_huge"))
    assert all(of(far, lie) == {"completed"} for lie in ("pickled", "record_message"))
    assert sorted(path.name for path in Path("/etc").iterdir()) == others
    made = {path for path in files(far.folder) - beside if not path.startswith(("sweep/", "outputs/"))}
    assert made == {"sweep", "launcher.log"}
    tasks = {int(path.name) for path in far.directory.iterdir() if path.name.isdecimal()}
    assert {path.name for path in far.directory.iterdir()} - {str(task) for task in tasks} <= OURS
    for task in far.state().tasks.values():
        assert task.attempt is not None
        if task.attempt.source != "local":
            result = far.output(task.index, "result.txt")
            assert not result.exists() or result.read_text() in ("a lie", f"{task.index}\n")
        else:
            assert far.output(task.index, "result.txt").read_text() == f"{task.index}\n"
    assert not list(far.folder.rglob("MARKER"))
    assert "\x1b]0;" not in far.said()
    assert "Traceback" not in far.said()


OURS = {".hsm", "logs", "reports", "errors", "failed_tasks", "multirun.yaml"}
"""what a sweep directory has beside those of tasks"""
