"""Who may write a sweep: one launcher at a time, and the newest of them.

Each launcher creates `owner_0001.json`, `owner_0002.json`, ... in the sweep's `.hsm` directory; the highest
number owns the sweep and is that launcher's epoch. The files stay, so numbers never repeat. Creating a
file that must not exist yet is atomic, on NFS too: that alone decides races. It appears with its content.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from hsm_core.crashpoint import crashpoint
from hsm_core.exceptions import Superseded, SweepBusy
from hsm_core.text import duration, printable, stamp

_NAME = re.compile(r"owner_(\d{4,})\.json")
_SAME = 0.5  # seconds within which two readings of a process's start mean the same process


@dataclass(frozen=True)
class OwnerInfo:
    """The launcher that owns a sweep, as far as this host can tell. `since` is in seconds since 1970.

    `host` is empty and `pid` 0 when its file can't be read: it is just being written, or its writer was killed.
    """

    host: str
    pid: int
    epoch: int
    since: float
    released: bool
    alive: bool | None
    """whether its process runs; None: it ran on another host, or can't be told"""
    stopped: bool = False
    """whether its process is alive and stopped, as by Ctrl-Z: then it does nothing until it is continued"""


class Owner:
    """This launcher's ownership of a sweep."""

    def __init__(self, path: Path, epoch: int, record: dict[str, Any]) -> None:
        self.epoch = epoch
        self._path = path
        self._record = record
        self._next = str(path.with_name(_name(epoch + 1)))

    @classmethod
    def acquire(cls, hsm_dir: Path, takeover: bool = False) -> Owner:
        """Become the owner of the sweep whose `.hsm` directory this is; its epoch is one more than the last owner's.

        An owner that released the sweep, or whose process on this host is gone, is succeeded. Any other raises
        SweepBusy, unless `takeover` is set: then it is succeeded as well, and finds that out by `check`. Of launchers
        that try at once one wins, the others raise SweepBusy. Raises OSError when the file can't be written.
        """
        known = 0
        while True:
            last = max(_highest(hsm_dir), known)
            if last:
                info = _read(hsm_dir, last)
                if not (info.released or info.alive is False or takeover):
                    raise SweepBusy(_busy(hsm_dir, info))
            try:
                return cls._create(hsm_dir, last + 1)
            except FileExistsError:
                # Someone else was faster. A directory listing may be out of date on NFS; this is not.
                known = last + 1
                takeover = False

    @classmethod
    def _create(cls, hsm_dir: Path, epoch: int) -> Owner:
        path = hsm_dir / _name(epoch)
        since_boot, started = _process_start(os.getpid())
        record = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": _boot_id(),
            "started": started,
            "since_boot": since_boot,
            "epoch": epoch,
            "since": datetime.now(timezone.utc).isoformat(),
            "released": False,
        }
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
        try:
            _write(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), record)
            crashpoint("owner_written")
            _link(new, path)
        finally:
            new.unlink(missing_ok=True)
        return cls(path, epoch, record)

    def check(self) -> None:
        """Raise Superseded when another launcher took the sweep over; costs one stat.

        On NFS the answer may be as old as the client's attribute cache, a minute by default.
        """
        if os.path.exists(self._next):
            raise Superseded(
                f"Another launcher took over the sweep in {self._path.parent.parent} (it wrote {self._next}). "
                f"This one (pid {os.getpid()}, epoch {self.epoch}) stops and writes no more; "
                "follow the sweep with `hsm monitor watch`."
            )

    def release(self) -> None:
        """Say that this launcher is done with the sweep, so that anyone may go on with it; idempotent.

        Raises OSError when that can't be written.
        """
        new = self._path.with_name(f".{self._path.name}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write(fd, {**self._record, "released": True})
            crashpoint("release_written")
            os.replace(new, self._path)
        except OSError:
            new.unlink()
            raise


def _link(new: Path, path: Path) -> None:
    """Give a file its name. Raises FileExistsError when that is taken."""
    try:
        os.link(new, path)
    except FileExistsError:
        # open(2), on O_EXCL: over NFS the answer may be wrong, the number of links is not.
        if os.stat(new).st_nlink != 2:
            raise
    except OSError:  # no links on this file system: then the name is taken first, and filled in a moment later
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(new.read_bytes())
        except OSError:
            path.unlink()
            raise


def current(hsm_dir: Path) -> OwnerInfo | None:
    """The sweep's owner, or None when it never had one."""
    epoch = _highest(hsm_dir)
    return _read(hsm_dir, epoch) if epoch else None


def _name(epoch: int) -> str:
    return f"owner_{epoch:04d}.json"


def _highest(hsm_dir: Path) -> int:
    try:
        names = os.listdir(hsm_dir)
    except FileNotFoundError:
        return 0
    return max((int(found[1]) for name in names if (found := _NAME.fullmatch(name))), default=0)


def _read(hsm_dir: Path, epoch: int) -> OwnerInfo:
    path = hsm_dir / _name(epoch)
    try:
        record = json.loads(path.read_text("utf-8"))
        host, pid = str(record["host"]), int(record["pid"])
        start = record.get("boot"), record["since_boot"], record["started"]
        alive = _alive(pid, *start) if host == socket.gethostname() else None
        since = datetime.fromisoformat(record["since"]).timestamp()
        stopped = alive is True and _is_stopped(pid)
        return OwnerInfo(host, pid, epoch, since, record["released"] is True, alive, stopped)
    except FileNotFoundError:
        return OwnerInfo("", 0, epoch, time.time(), False, None)
    except (ValueError, KeyError, TypeError):
        return OwnerInfo("", 0, epoch, path.stat().st_mtime, False, None)


def _alive(pid: int, boot: str | None, since_boot: float, started: float) -> bool | None:
    """Whether this very process still runs, not another one which got its pid.

    After a reboot a service may well get the same pid, as long after the boot as before: the
    boot itself tells them apart, where the system names it.
    """
    if boot is not None and boot != _boot_id():
        return False
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        now_since_boot, now_started = _process_start(pid)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return None
    return abs(now_since_boot - since_boot) < _SAME or abs(now_started - started) < _SAME


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _boot_id() -> str | None:
    """Linux's name of the time between two boots (random(4)); None elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def _process_start(pid: int) -> tuple[float, float]:
    """When the process started, in seconds since the boot and since 1970.

    Linux counts from the boot, macOS by the clock; the other of the two moves when the clock is set.
    """
    boot = psutil.boot_time()
    started = psutil.Process(pid).create_time()
    return started - boot, started


def _write(fd: int, record: dict[str, Any]) -> None:
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(record, file)
        file.write("\n")
        file.flush()
        os.fsync(fd)


def _busy(hsm_dir: Path, info: OwnerInfo) -> str:
    directory = hsm_dir.parent
    age = duration(time.time() - info.since)
    if not info.host:
        return (
            f"The sweep in {directory} is just being opened by another launcher: {hsm_dir / _name(info.epoch)} "
            f"is {age} old and not filled in. Try again in a moment; if that stays so, its launcher was killed, "
            "and --takeover goes on without it."
        )
    host = printable(info.host)
    who = f"The sweep in {directory} is run by pid {info.pid} on {host}, since {stamp(info.since)} ({age})."
    if info.alive:
        return (
            f"{who} Follow it with `hsm monitor watch`, or end it with `kill {info.pid}`. "
            "If it hangs, --takeover goes on without it."
        )
    return (
        f"{who} From here, {socket.gethostname()}, nobody can tell whether it still runs. Look there for it; "
        "if it is gone, or shall end, --takeover goes on without it."
    )
