"""Real private sshd's on this machine: one unix user per host, so that no two share files with each other or with us.

A host listens on a loopback address of its own. Its folder in /tmp belongs to root; the user's home in it is 0700.
Making users and running sshd need root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from hsm_core.config import SourceConfig
from hsm_core.testing import alive, wait_until

SSHD = "/usr/sbin/sshd"
PREFIX = "hsmt"
"""of the names of our users and folders"""


def need(programs: Sequence[str], what: str) -> None:
    """Skip the test where it can't have what it needs; in CI that is a failure."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if os.geteuid() != 0:
        lack = f"{what} needs root, to make users and start daemons; run the tests in a container, or with sudo"
    elif missing:
        lack = f"{what} needs {', '.join(missing)}; `make programs` installs what the tests call"
    else:
        return
    if os.environ.get("CI"):
        pytest.fail(lack)
    pytest.skip(lack)


class ClientKey:
    """A key pair of ours; `passphrase` protects the private one."""

    def __init__(self, folder: Path, name: str = "id_ed25519", kind: str = "ed25519", passphrase: str = "") -> None:
        self.path = folder / name
        self.passphrase = passphrase
        make_key(self.path, kind, passphrase)

    @property
    def public(self) -> str:
        """The line that an authorized_keys file gets."""
        return self.path.with_name(f"{self.path.name}.pub").read_text()


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> None:
    """Make a key pair, over one that is there already."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "hsm test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


class SshHost:
    """One host with one user. A context manager: it runs from `__enter__` on, and nothing is left behind `__exit__`.

    `settings` go into its sshd_config and win over ours; `files` are put into the user's home (`.bashrc`: text),
    `home` is the name of that. `before` stands before the command line of its sshd, as `ip netns exec x` would.
    """

    def __init__(
        self,
        key: ClientKey,
        settings: Mapping[str, str] | None = None,
        *,
        login_shell: str = "/bin/bash",
        home: str = "home",
        files: Mapping[str, str] | None = None,
        address: str | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.key = key
        self.user = PREFIX + secrets.token_hex(4)
        self.address = address or f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        self.port = 0
        self.folder = Path(tempfile.gettempdir(), self.user)
        self.home = self.folder / home
        self.log = self.folder / "sshd.log"
        self.settings = dict(settings or {})
        self._login_shell = login_shell
        self._files = dict(files or {})
        self._before = before
        self._sshd: subprocess.Popen[bytes] | None = None
        self._sessions: list[psutil.Process] = []

    def __enter__(self) -> SshHost:
        try:
            self.folder.mkdir(mode=0o755)
            self._make_user()
            make_key(self.host_key)
            self.authorized_keys.write_text(self.key.public)
            self.port = free_port("127.0.0.1")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        remove_user(self.user)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_user(self) -> None:
        # The password `*` fits none and, other than `!`, leaves the account open; sshd looks at that without PAM.
        command = ["useradd", "-M", "-d", str(self.home), "-s", self._login_shell, "-p", "*"]
        with _user_database():
            subprocess.run([*command, "-c", f"hsm test of {os.getpid()}", self.user], check=True, capture_output=True)
        entry = pwd.getpwnam(self.user)
        self.uid, gid = entry.pw_uid, entry.pw_gid
        self.home.mkdir(mode=0o700)
        for name, text in self._files.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_text(text)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, self.uid, gid)

    @property
    def host_key(self) -> Path:
        return self.folder / "host_key"

    @property
    def authorized_keys(self) -> Path:
        """Who may log in; sshd reads it anew for each login."""
        return self.folder / "authorized_keys"

    def start(self) -> None:
        """Run sshd, with the settings as they are now; returns once it listens."""
        # sshd itself makes this one nowhere; a package's service does, before it starts.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        ours = {
            "ListenAddress": self.address,
            "Port": str(self.port),
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(self.authorized_keys),
            "PidFile": "none",
            "AllowUsers": self.user,
            "UsePAM": "no",
            "StrictModes": "no",  # /tmp above the home is writable for all
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PrintMotd": "no",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",
            # From our address come many failed logins, on purpose.
            **({"PerSourcePenalties": "no"} if _knows_penalties() else {}),
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{key} {value}\n" for key, value in {**ours, **self.settings}.items()))
        heard = self._said().count("Server listening on")
        with open(self.log, "ab") as log:
            # sshd ends with us, even where we are killed.
            with_us = ["setpriv", "--pdeathsig", "KILL"]
            command = [*self._before, *with_us, SSHD, "-D", "-e", "-f", str(config)]
            self._sshd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def listens() -> bool:
            assert self._sshd is not None
            if self._sshd.poll() is not None:
                pytest.fail(f"sshd did not start:\n{self._said()}")
            return self._said().count("Server listening on") > heard

        wait_until(listens, "sshd to listen")

    def stop(self) -> None:
        """End sshd and its sessions; what those had started lives on."""
        if self._sshd is None:
            return
        sessions = self._session_processes()
        self._sshd.kill()
        self._sshd.wait()
        self._sshd = None
        _kill(sessions)

    def kill_sessions(self) -> None:
        """Kill the processes that serve the connections there are now; sshd goes on, and what they had started."""
        _kill(self._session_processes())

    def freeze(self) -> contextlib.AbstractContextManager[None]:
        """Nothing of sshd moves inside this."""
        return _stopped([psutil.Process(self._pid), *self._session_processes()])

    def _session_processes(self) -> list[psutil.Process]:
        found = []
        for process in self._started():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    found.append(process)
        return found

    def _started(self) -> list[psutil.Process]:
        """All that comes from sshd, whoever started it."""
        try:
            return psutil.Process(self._pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @property
    def _pid(self) -> int:
        assert self._sshd is not None, "sshd does not run"
        return self._sshd.pid

    def new_host_key(self, kind: str = "ed25519") -> None:
        """From now on it has another host key."""
        self.stop()
        make_key(self.host_key, kind)
        self.start()

    def logins(self) -> int:
        """How often somebody logged in."""
        return self._said().count("Accepted publickey")

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for_log(self, pattern: str) -> None:
        """Wait until sshd has written something that fits a regular expression."""
        wait_until(lambda: re.search(pattern, self._said()) is not None, f"{pattern!r} in the log of sshd")

    def programs(self, name: str) -> list[psutil.Process]:
        """The processes of its user whose first words are `name`."""
        found = []
        for process in _processes_of(self.uid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if shlex.join(process.cmdline()).startswith(name):
                    found.append(process)
        return found

    @property
    def known_as(self) -> str:
        """Its name in known_hosts files."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def public_key(self) -> str:
        """Type and base64 of its host key."""
        return " ".join(self.host_key.with_name("host_key.pub").read_text().split()[:2])

    @property
    def known_hosts_line(self) -> str:
        return f"{self.known_as} {self.public_key}\n"

    def fingerprint(self) -> str:
        """As `SHA256:...`."""
        told = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(self.host_key)], check=True, capture_output=True, text=True
        )
        return told.stdout.split()[1]

    def config(self, **fields: object) -> SourceConfig:
        """A source that leads here with our key; `fields` win."""
        ours: dict[str, object] = {"host": self.address, "port": self.port, "user": self.user}
        ours["ssh_key"] = str(self.key.path)
        return SourceConfig(type="ssh", **{**ours, **fields})  # type: ignore[arg-type]


class SshHome:
    """A home of ours with its own `.ssh`; $HOME leads to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / ".ssh"
        self.ssh.mkdir(mode=0o700, parents=True)
        self.known_hosts = self.ssh / "known_hosts"
        self.config = self.ssh / "config"

    def trust(self, *hosts: SshHost) -> None:
        """Write the host keys they have now into known_hosts."""
        with open(self.known_hosts, "a") as file:
            file.writelines(host.known_hosts_line for host in hosts)


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def remove_user(name: str) -> None:
    """Remove a user with all that runs under that name; nothing happens where there is none."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    while processes := _processes_of(uid):
        _kill(processes)
    with _user_database():
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def remove_leftovers() -> list[str]:
    """Remove the users and folders of test runs that were killed; returns the users' names."""
    removed = []
    for entry in pwd.getpwall():
        owner = re.fullmatch(r"hsm test of (\d+)", entry.pw_gecos.split(",")[0])
        if entry.pw_name.startswith(PREFIX) and owner is not None and not psutil.pid_exists(int(owner[1])):
            remove_user(entry.pw_name)
            shutil.rmtree(Path(tempfile.gettempdir(), entry.pw_name), ignore_errors=True)
            removed.append(entry.pw_name)
    return removed


@contextlib.contextmanager
def _user_database() -> Iterator[None]:
    """Only one of us changes it; useradd itself gives up where another one is at it."""
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _processes_of(uid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(alive(process.pid) for process in processes), "killed processes to end")


@contextlib.contextmanager
def _stopped(processes: Sequence[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def _knows_penalties() -> bool:
    """Whether this sshd has PerSourcePenalties, as OpenSSH has since 9.8."""
    version = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (9, 8)
