"""Slurm's accounting: a slurmdbd over a MariaDB of its own, which listens on a socket in its folder and on no port."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testbed.daemon import Daemon

USER = "mysql"
"""made by MariaDB's package"""


class Accounting:
    """The two daemons of one cluster; its `slurmdbd.conf` is in the folder already, and its munged runs."""

    def __init__(self, folder: Path, make_daemon: Callable[..., Daemon]) -> None:
        self._home = folder / "mariadb"
        self._options = ["--no-defaults", f"--datadir={self._home}/data", f"--user={USER}"]
        # It is young, small, and gone soon.
        self._options += ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"]
        self._socket = self._home / "socket"
        server = ["mariadbd", *self._options, "--innodb-flush-log-at-trx-commit=0", "--skip-networking"]
        server += [f"--socket={self._socket}", f"--pid-file={self._home}/pid"]
        self.mariadbd = make_daemon("mariadbd", server)
        # slurmdbd.conf(5) knows a host and a port only; this is how the client library inside finds a socket.
        self.slurmdbd = make_daemon("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(self._socket))

    def start(self, answers: Callable[[], bool]) -> None:
        """Make the database and run both; returns once `answers`, which is to ask slurmdbd for something."""
        self._home.mkdir(mode=0o700)
        shutil.chown(self._home, USER)
        # root may log in to it as root, through the socket, without a password.
        how = ["--auth-root-authentication-method=socket", "--skip-test-db"]
        made = subprocess.run(
            ["mariadb-install-db", *self._options, *how],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.fail(f"mariadb-install-db made no database:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
        self.mariadbd.start(self._socket.exists)
        self.slurmdbd.start(answers)
