"""Hosts that are odd, but can do it: homes, shells and profiles; few sessions; slow ones beside quick ones."""

from __future__ import annotations

import pytest

from hsm_core.events import AttemptFinished, SourceStarted
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome

NOISE = 'echo "Welcome to $HOSTNAME"; printf "\\033]0;title\\007 no newline" >&2; printf "more"\n'
HOSTS: dict[str, dict[str, object]] = {
    "quoted home": {"home": 'it\'s "my" $HOME; `home` & co'},
    "fish": {"login_shell": "/usr/bin/fish", "files": {".config/fish/config.fish": "echo hello; echo >&2 there\n"}},
    "noise": {"files": {".bashrc": NOISE, ".profile": NOISE}},
    "slow profile": {"files": {".bashrc": "sleep 3\n"}},
    "dash, spaces": {"login_shell": "/bin/dash", "home": " my home "},
}


@pytest.mark.parametrize("options", HOSTS.values(), ids=HOSTS.keys())
def test_a_whole_sweep(options: dict[str, object], make_host: MakeHost, ssh_home: SshHome, make_far: MakeFar) -> None:
    host = make_host(**options)
    ssh_home.trust(host)
    # `setup` is run by a login shell, with its own profile.
    far = make_far(host, {"setup": ["export FLAVOUR='it is \"sour\"'"]})
    keep = """+do="(out / 'flavour').write_text(os.environ['FLAVOUR'])\""""
    assert far.launch("+x=range(4)", keep).wait(90) == 0, far.said()
    assert [far.output(index, "flavour").read_text() for index in range(4)] == ['it is "sour"'] * 4
    far.assert_done_once(4)


@pytest.mark.parametrize("setting", ["MaxSessions", "MaxStartups"])
def test_a_host_that_allows_one_at_a_time(
    setting: str, make_host: MakeHost, ssh_home: SshHome, make_far: MakeFar
) -> None:
    host = make_host({setting: "1"})
    ssh_home.trust(host)
    far = make_far(host)
    assert far.launch("+x=range(6)").wait(90) == 0, far.said()
    far.assert_done_once(6)


def test_one_login_is_enough(far: FarSweep) -> None:
    assert far.launch("+x=range(30)").wait(90) == 0, far.said()
    far.assert_done_once(30)
    assert far.host.logins() == 1


def test_a_slow_host_holds_nobody_up(make_host: MakeHost, ssh_home: SshHome, make_far: MakeFar) -> None:
    """Its profile takes as long as the other one needs for its tasks."""
    quick, slow = make_host(), make_host(files={".bashrc": "while [ ! -e ~/gate ]; do sleep 0.05; done\n"})
    ssh_home.trust(quick, slow)
    far = make_far({"quick": (quick, {}), "slow": (slow, {})})
    launcher = far.launch("+x=range(8)", "+gated=4")
    far.wait_heard(AttemptFinished, 4)
    assert [event.source for event in far.heard(SourceStarted)] == ["quick"]
    (slow.home / "gate").touch()
    far.wait_heard(AttemptFinished, 6)
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    state = far.state()
    assert [task.attempt and task.attempt.source for task in state.tasks.values()] == ["quick"] * 6 + ["slow"] * 2
    far.assert_done_once(8)
