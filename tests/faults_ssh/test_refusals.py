"""Hosts where no task can run: each is refused before any task, in words that say what to do; the others go on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hsm_core.events import AttemptStarted, AttemptSubmitted, SourceDisabled
from tests.faults_ssh.conftest import MakeFar, Sources
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import ClientKey, SshHome, SshHost

OLD = """#!/bin/sh
# Python 3.8 by its own word: the program that comes is text behind -c.
shift
program=$1
shift
exec {python} -c 'import sys
sys.version_info = (3, 8, 20)
exec(sys.argv.pop(1))' "$program" "$@"
"""

Expected = dict[str, list[str]]
"""by the name of a source, what is to be said of it"""


@pytest.fixture
def unfit(
    make_host: MakeHost, ssh_host: SshHost, ssh_home: SshHome, tmp_path: Path, far_python: Path
) -> tuple[Sources, Expected]:
    """Sources of which each has a fault of its own."""
    changed, unknown = make_host(), make_host()
    ssh_home.trust(changed)
    old_key = changed.fingerprint()
    changed.new_host_key()
    (ssh_host.folder / "closed").mkdir(mode=0o700)
    old = ssh_host.folder / "python3.8"
    old.write_text(OLD.format(python=far_python))
    old.chmod(old.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    bare = ssh_host.folder / "bare"
    bare.symlink_to("/usr/bin/python3")
    other = ClientKey(tmp_path, "other")
    cases: dict[str, tuple[SshHost, dict[str, object], list[str]]] = {
        "changed_key": (changed, {}, [changed.fingerprint(), old_key, "ssh-keygen", f"-R '{changed.known_as}'"]),
        "unknown_key": (unknown, {}, [unknown.fingerprint(), "ssh-keyscan"]),
        "wrong_key": (ssh_host, {"ssh_key": str(other.path)}, [f"{ssh_host.user}@{ssh_host.address}", str(other.path)]),
        "no_python": (ssh_host, {"python": "/nowhere/python"}, ["there is no program /nowhere/python", "conda_env"]),
        "old_python": (ssh_host, {"python": str(old)}, ["is Python 3.8.20", "3.10 or newer"]),
        "no_hydra": (ssh_host, {"python": str(bare)}, ["hydra-core is not installed for"]),
        "closed": (ssh_host, {"project_dir": f"{ssh_host.folder}/closed"}, ["project_dir", "can't be entered there"]),
        "no_conda": (ssh_host, {"conda_env": "ml"}, ["conda was not found", "setup"]),
        "setup": (ssh_host, {"setup": ["true", "module load no-such"]}, ["'module load no-such'", "module:"]),
    }
    sources = {name: (host, fields) for name, (host, fields, _) in cases.items()}
    return sources, {name: words for name, (_, _, words) in cases.items()}


def test_all_that_can_be_wrong_is_said_at_once(make_far: MakeFar, unfit: tuple[Sources, Expected]) -> None:
    sources, expected = unfit
    far = make_far(sources)
    assert far.launch("+x=range(2)").wait(60) == 1
    said = {event.source: event.reason for event in far.heard(SourceDisabled)}
    assert said.keys() == expected.keys()
    for name, words in expected.items():
        assert all(word in said[name] for word in words), said[name]
        assert all(word in far.said() for word in words)
    assert "Traceback" not in far.said()
    assert far.heard(AttemptSubmitted) == []
    far.audit()


def test_other_sources_go_on(make_far: MakeFar, unfit: tuple[Sources, Expected]) -> None:
    sources, expected = unfit
    far = make_far(sources, local=1)
    launcher = far.launch("+x=range(4)", "+gated=2")
    far.wait_heard(SourceDisabled, len(expected))
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    assert {event.source for event in far.heard(SourceDisabled)} == expected.keys()
    far.assert_done_once(4)


def test_what_was_refused_works_once_it_is_put_right(
    make_far: MakeFar, ssh_host: SshHost, ssh_home: SshHome, far_python: Path
) -> None:
    ssh_home.known_hosts.write_text("")
    far = make_far(ssh_host)
    assert far.launch("+x=range(4)").wait(60) == 1
    ssh_home.trust(ssh_host)
    assert far.complete().wait(60) == 0, far.said()
    far.assert_done_once(4)


def test_a_host_that_is_another_one_when_it_comes_back(make_far: MakeFar, ssh_host: SshHost, ssh_home: SshHome) -> None:
    """It is not trusted, whatever runs there: that is lost, and runs elsewhere."""
    far = make_far(ssh_host, local=1)
    launcher = far.launch("+x=range(4)", "+gated=0")
    far.wait_heard(AttemptStarted, 3)
    there = {event.task for event in far.heard(AttemptStarted) if event.source == "far"}
    ssh_host.new_host_key()
    far.wait_heard(SourceDisabled)
    assert "its host key CHANGED" in far.said()
    (ssh_home.folder / "gate").touch()
    assert launcher.wait(60) == 0, far.said()
    assert far.submissions() == {index: 2 if index in there else 1 for index in range(4)}
    assert all(task.attempt and task.attempt.source == "local" for task in far.state().tasks.values())
    assert far.findings() == []
