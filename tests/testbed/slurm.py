"""Real Slurm clusters on this machine: a slurmctld and some slurmd each, as root, with a munged of their own.

Tried with Slurm 22.05; what it answers is in `slurm_outputs/`. What to know when writing tests on it:

* Memory: without cgroups the job's own slurmstepd measures it each second and kills what is over. Slurm then calls the
  job FAILED, with signal 9 (reason JobLaunchFailure), and only the job's stderr says "Exceeded job memory limit".
  `memory_cgroups=True` needs cgroups v1 that can be written to, and ends such a job as OUT_OF_MEMORY.
* Time limits are minutes, and slurmctld looks at them every 30 s; `expire` makes a job's limit pass now, so that it
  is TIMEOUT within 30 s. Nothing in slurm.conf makes this quicker.
* A node whose daemons are killed is noticed after about 30 s, with SlurmdTimeout=10 too; its jobs then are NODE_FAIL,
  or pending again where they may be requeued, while their processes live on. `scontrol update nodename=n1 state=down`
  does the same at once, and ends the processes; `state=resume` takes it back.
* What was requeued starts again after 5 s (cred_expire in AuthInfo; 2 minutes elsewhere).
* slurmctld forgets ended jobs MinJobAge=5 s after, and looks for those every 10 s.
* Killed, not stopped, slurmctld forgets what it was told in its last seconds, and gives the same job ids again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from hsm_core.testing import wait_until
from tests.testbed.daemon import Daemon
from tests.testbed.ports import Ports
from tests.testbed.slurm_accounting import Accounting
from tests.testbed.slurm_conf import Node, cgroup_conf, gres_conf, slurm_conf, slurmdbd_conf

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db")
PREFIX = "hsmt-slurm-"
"""of the names of our folders"""
REGISTERED = "slurmd started on"
"""what a slurmd says, once"""
CGROUP = Path("/sys/fs/cgroup/memory")


class SlurmCluster:
    """One cluster. A context manager: it runs from `__enter__` on, and nothing is left behind `__exit__`.

    Nodes are called n1, n2, ... and have `cpus` CPUs and `memory` MiB each, the last one `gpus` GPUs. Partitions are
    main (the default), low and high; a job of high has those of low requeued, or cancelled, where it needs the room.
    `settings` go into slurm.conf and win over ours. Its jobs run as whoever submits them.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        nodes: int = 4,
        cpus: int = 4,
        memory: int = 4000,
        gpus: int = 4,
        accounting: bool = False,
        memory_cgroups: bool = False,
    ) -> None:
        token = secrets.token_hex(3)
        self.folder = Path(tempfile.gettempdir(), f"{PREFIX}{os.getpid()}-{token}")
        self.settings = dict(settings or {})
        self.accounting = Accounting(self.folder, self._make_daemon) if accounting else None
        self._memory_cgroups = memory_cgroups
        # A slurmd's cgroups are called as its node is, whichever cluster that belongs to.
        names = [f"{f'm{token}' if memory_cgroups else ''}n{i + 1}" for i in range(nodes)]
        self._nodes = [Node(name, cpus, memory, gpus if name == names[-1] else 0) for name in names]
        self._ports: Ports | None = None
        self._munged = self._make_daemon("munged", self._munged_command())
        self._slurmctld = self._make_daemon("slurmctld", ["slurmctld", "-D"])
        self._slurmd = {name: self._make_daemon(name, ["slurmd", "-D", "-N", name]) for name in names}

    @property
    def nodes(self) -> list[str]:
        return list(self._slurmd)

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs in its environment that is to use this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}

    def __enter__(self) -> SlurmCluster:
        try:
            self.folder.mkdir(mode=0o755)
            self._write_files()
            self._munged.start((self._gate / "socket").exists)
            if self.accounting is not None:
                self.accounting.start(lambda: self._call(["sacctmgr", "-n", "list", "cluster"]).returncode == 0)
            self.start_controller()
            for daemon in self._slurmd.values():
                daemon.launch()
            for name in self.nodes:
                self._wait_for_node(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for daemon in (*self._slurmd.values(), self._slurmctld):
            daemon.end()
        if self.accounting is not None:
            self.accounting.slurmdbd.end()
            self.accounting.mariadbd.end()
        self._munged.end()
        if self._ports is not None:
            self._ports.give_back()
        if self._memory_cgroups:
            _remove_cgroups(self.nodes)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_daemon(self, name: str, command: Sequence[str], **environ: str) -> Daemon:
        return Daemon(name, command, self.folder / f"{name}.log", {**self.environ, **environ})

    @property
    def _gate(self) -> Path:
        """The folder of munged's socket, which everybody may enter; the one of its key is another."""
        return self.folder / "gate"

    def _munged_command(self) -> list[str]:
        home = self.folder / "munge"
        files = {
            "key-file": home / "key",
            "pid-file": home / "pid",
            "log-file": home / "log",
            "seed-file": home / "seed",
            "socket": self._gate / "socket",
        }
        as_munge = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"]
        return [*as_munge, "munged", "--foreground", *(f"--{name}={path}" for name, path in files.items())]

    def _write_files(self) -> None:
        self._ports = Ports(len(self._nodes) + 2)
        controller, dbd, *ports = self._ports.ports
        host = socket.gethostname().split(".")[0]
        files = {
            "slurm.conf": slurm_conf(
                self.folder,
                host,
                controller,
                dict(zip(ports, self._nodes, strict=True)),
                dbd_port=dbd if self.accounting is not None else None,
                memory_cgroups=self._memory_cgroups,
                settings=self.settings,
            ),
            "slurmdbd.conf": slurmdbd_conf(self.folder, host, dbd),
            "gres.conf": gres_conf(self.folder, self._nodes),
            "cgroup.conf": cgroup_conf(),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        # slurmdbd refuses one that others may read; there could be a password in it.
        (self.folder / "slurmdbd.conf").chmod(0o600)
        for index in range(max(node.gpus for node in self._nodes)):
            # Slurm wants to see devices.
            (self.folder / f"nvidia{index}").symlink_to("/dev/null")
        (self.folder / "state").mkdir()
        home = self.folder / "munge"
        home.mkdir(mode=0o700)
        self._gate.mkdir(mode=0o755)
        (home / "key").write_bytes(secrets.token_bytes(128))
        (home / "key").chmod(0o400)
        for path in (home, home / "key", self._gate):
            shutil.chown(path, "munge", "munge")

    def run(self, *command: str) -> str:
        """What a command of Slurm's prints; where it fails, the test does."""
        done = self._call(command)
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, **self.environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def submit(self, command: str, *options: str) -> str:
        """Submit a line of shell with options of sbatch; returns the job's id."""
        output = f"--output={self.folder}/job-%A_%a.out"
        return self.run("sbatch", "--parsable", output, *options, "--wrap", command).strip().split(";")[0]

    def output(self, job: str, index: int | None = None) -> str:
        """What a job of `submit`, or one element of an array, wrote so far."""
        # What a single job has in the place of an index is Slurm's NO_VAL.
        path = self.folder / f"job-{job}_{4294967294 if index is None else index}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def jobs(self) -> dict[str, str]:
        """What slurmctld knows, as {"12": "RUNNING", "13_0": "PENDING", ...}; ended jobs for a while."""
        listed = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T")
        return dict(line.split("|") for line in listed.splitlines())

    def wait_for(self, job: str, state: str) -> None:
        """Wait until a job, or an element of an array ("13_0"), is in a state."""
        wait_until(lambda: self.jobs().get(job) == state, f"job {job} to be {state}")

    def clear(self) -> None:
        """Cancel all jobs, and return once none has anything running."""
        if jobs := self.jobs():
            self.run("scancel", "--quiet", *{name.partition("_")[0] for name in jobs})
        wait_until(lambda: self.run("squeue", "-h") == "", "cancelled jobs to end")

    def expire(self, job: str) -> None:
        """A running job's time limit is over; Slurm ends it with TIMEOUT when it looks the next time, within 30 s."""
        self.run("scontrol", "update", f"jobid={job}", "endtime=now")

    def start_controller(self) -> None:
        """Run slurmctld; returns once it answers."""
        self._slurmctld.start(lambda: self._call(["scontrol", "ping"]).returncode == 0)

    def stop_controller(self) -> None:
        """End slurmctld in good order; jobs go on."""
        self._slurmctld.terminate()

    def kill_controller(self) -> None:
        """Kill slurmctld; jobs go on, and it forgets what it was told in the last seconds."""
        self._slurmctld.kill("slurmctld")

    def freeze_controller(self) -> contextlib.AbstractContextManager[None]:
        """slurmctld accepts connections inside this, and answers none of them before the end."""
        return self._slurmctld.frozen()

    def kill_node(self, name: str) -> None:
        """Kill a node's slurmd and slurmstepds; the tasks there live on, as they do behind a cut line."""
        self._slurmd[name].kill("slurmd", "slurmstepd")

    def power_off(self, name: str) -> None:
        """Kill all that runs on a node, its tasks too."""
        self._slurmd[name].end()

    def start_node(self, name: str) -> None:
        """Run a node's slurmd again; returns once jobs can start there."""
        slurmd = self._slurmd[name]
        # Until then slurmctld may not have noticed that the last one was gone.
        registered = slurmd.said().count(REGISTERED)
        slurmd.start(lambda: slurmd.said().count(REGISTERED) > registered)
        self._wait_for_node(name)

    def _wait_for_node(self, name: str) -> None:
        def up() -> bool:
            states = self.run("sinfo", "-h", "-n", name, "-o", "%T").split()
            return set(states) <= {"idle", "mixed", "allocated"}

        self._slurmd[name].wait_until(up)

    def processes(self, name: str) -> list[psutil.Process]:
        """All that runs on a node: its daemons and the processes of its jobs."""
        return self._slurmd[name].kept()


def remove_leftovers() -> None:
    """Remove the folders of test runs that were killed; all that ran there has ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = re.fullmatch(rf"{PREFIX}(\d+)-[0-9a-f]+", folder.name)
        if owner is not None and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_cgroups(nodes: Sequence[str]) -> None:
    """slurmd leaves its own groups behind."""
    for node in nodes:
        for top in CGROUP.parent.glob(f"*/slurm_{node}"):
            for folder, _, _ in os.walk(top, topdown=False):
                os.rmdir(folder)
