"""The hosts of the testbed are real, apart from each other, and leave nothing behind."""

from __future__ import annotations

import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from hsm_core.testing import alive, wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.network import remove_line
from tests.testbed.sshd import ClientKey, SshHome, SshHost, remove_leftovers, remove_user


def ssh(host: SshHost, home: SshHome, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(host, home, command), capture_output=True, text=True, timeout=60, check=False)


def words(host: SshHost, home: SshHome, command: str) -> list[str]:
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={home.known_hosts}"]
    return ["ssh", *options, "-i", str(host.key.path), "-p", str(host.port), f"{host.user}@{host.address}", command]


def test_a_host_lets_our_key_in(ssh_host: SshHost, ssh_home: SshHome) -> None:
    told = ssh(ssh_host, ssh_home, "id -un; cd; pwd; stat -c %a .")
    assert told.stdout.split() == [ssh_host.user, str(ssh_host.home), "700"], told
    assert ssh_host.logins() == 1


def test_two_hosts_share_nothing(make_host: MakeHost, ssh_home: SshHome) -> None:
    one, two = make_host(home='it\'s a "home"'), make_host()
    ssh_home.trust(one, two)
    (two.home / "secret").write_text("2")
    assert ssh(one, ssh_home, "pwd").stdout == f'{one.folder}/it\'s a "home"\n'
    told = ssh(one, ssh_home, f"cat {two.home}/secret")
    assert (told.returncode, told.stdout) == (1, ""), told


def test_a_host_is_stopped_and_comes_back_where_it_was(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_host.stop()
    assert ssh(ssh_host, ssh_home, "true").returncode == 255
    ssh_host.start()
    assert ssh(ssh_host, ssh_home, "true").returncode == 0


def test_killed_sessions_leave_what_they_started(ssh_host: SshHost, ssh_home: SshHome) -> None:
    command = words(ssh_host, ssh_home, "exec sleep 600")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_until(lambda: ssh_host.programs("sleep 600") != [], "the program to run")
        ssh_host.kill_sessions()
        assert client.wait() == 255
    assert len(ssh_host.programs("sleep 600")) == 1
    assert ssh(ssh_host, ssh_home, "true").returncode == 0


def test_nothing_is_left(client_key: ClientKey, ssh_home: SshHome) -> None:
    with SshHost(client_key) as host:
        ssh_home.trust(host)
        assert ssh(host, ssh_home, "setsid sleep 600 >/dev/null 2>&1 <&1 &").returncode == 0
        wait_until(lambda: host.programs("sleep 600") != [], "the program to run")
    with pytest.raises(KeyError):
        pwd.getpwnam(host.user)
    assert not host.folder.exists()
    assert not [p for p in psutil.process_iter() if p.uids().real == host.uid and alive(p.pid)]


KILLED = """
import os, sys
from pathlib import Path
from tests.testbed.network import NetnsHost
from tests.testbed.sshd import ClientKey
host = NetnsHost(ClientKey(Path(sys.argv[1]))).__enter__()
print(host.user, host._sshd.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_one(client_key: ClientKey, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    user, sshd = killed.stdout.split()
    wait_until(lambda: not alive(int(sshd)), "its sshd to end")
    # Another worker of this run may be at it too.
    remove_leftovers()
    remove_line(user)
    wait_until(lambda: user not in (entry.pw_name for entry in pwd.getpwall()), "its user to be gone")
    wait_until(lambda: not Path(tempfile.gettempdir(), user).exists(), "its folder to be gone")
    wait_until(lambda: user not in namespaces(), "its namespace to be gone")
    assert not Path("/sys/class/net", f"{user}n").exists()


def namespaces() -> list[str]:
    return subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()


def test_a_user_that_is_gone_can_be_removed_again() -> None:
    remove_user("hsmt-nobody")


def test_a_host_whose_settings_are_wrong_is_a_failure(client_key: ClientKey) -> None:
    host = SshHost(client_key, {"NoSuchThing": "yes"})
    with pytest.raises(pytest.fail.Exception, match="NoSuchThing"):
        host.__enter__()
    assert not host.folder.exists()
