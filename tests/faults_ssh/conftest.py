"""Whole sweeps on hosts reached by SSH that share no files with us, hurt on purpose; and the audit that follows."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

from hsm_core import events as ev
from hsm_core.config import SourceConfig
from hsm_core.journal import entries
from hsm_core.task import TaskState
from hsm_core.testing import wait_until
from tests.faults.conftest import Sweep, interruptible
from tests.testbed.fixtures import client_key, far_python, make_host, netns_host, ssh_home, ssh_host
from tests.testbed.sshd import SshHome, SshHost

__all__ = ["client_key", "far_python", "interruptible", "make_host", "netns_host", "ssh_home", "ssh_host"]

APP = """
import os, sys, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    with open(out / "starts", "a") as f:
        f.write(f"{os.getpid()}\\n")
    if (out / "checkpoint").exists():
        (out / "resumed").touch()
    (out / "checkpoint").touch()
    gate = Path.home() / "gate"
    while cfg.x >= cfg.get("gated", 10**9) and not gate.exists():
        time.sleep(0.02)
    if cfg.x == cfg.get("bad"):
        raise ValueError(f"bad point {cfg.x}")
    if "do" in cfg:
        exec(cfg.do, globals() | {"cfg": cfg, "out": out})
    (out / "result.txt").write_text(f"{cfg.x}\\n")
    return cfg.x * 10


if __name__ == "__main__":
    main()
"""
"""waits at a gate in the home of whoever runs it; leaves and looks for a checkpoint; `do` is Python that it runs"""

Kind = TypeVar("Kind", bound=ev.Event)


class FarSweep(Sweep):
    """A sweep whose sources lead to hosts, by name; with `local` there is one of so many slots here beside them."""

    def __init__(
        self,
        folder: Path,
        hosts: Mapping[str, tuple[SshHost, SourceConfig]],
        local: int = 0,
        **sections: Mapping[str, Any],
    ) -> None:
        super().__init__(folder)
        self.hosts = {name: host for name, (host, _) in hosts.items()}
        (folder / "app.py").write_text(APP)
        sources: dict[str, Any] = {name: _told(config) for name, (_, config) in hosts.items()}
        if local:
            sources["local"] = {"type": "local", "max_parallel_tasks": local}
        compute = {"result_collection_interval": 0.5, **sections.pop("compute", {})}
        text = yaml.safe_dump({"compute_sources": sources, "compute": compute, **sections}, sort_keys=False)
        (folder / "hsm_config.yaml").write_text(text)

    @property
    def host(self) -> SshHost:
        """The only one, or the first."""
        return next(iter(self.hosts.values()))

    def place(self, source: str = "far") -> Path:
        """The sweep's directory on the host of a source; that must have begun."""
        (found,) = (self.hosts[source].home / ".hsm" / "sweeps").glob(f"*/{source}")
        return found

    def there(self, index: int, name: str, source: str = "far") -> Path:
        """A file that a task leaves, on the host."""
        return self.place(source) / self.subdir(index) / name

    def wait_there(self, index: int, name: str = "starts", source: str = "far") -> Path:
        """Wait until a task has left a file on the host."""

        def left() -> bool:
            return any((self.hosts[source].home / ".hsm/sweeps").glob(f"*/{source}/{self.subdir(index)}/{name}"))

        wait_until(left, f"{name} of task {index} on {source}; the launcher said:\n{self.said()}")
        return self.there(index, name, source)

    def pid_there(self, index: int) -> int:
        """The process that runs a task on the host, once it has said so."""
        path = self.wait_there(index)
        wait_until(lambda: path.read_text().endswith("\n"), f"the pid of task {index}")
        return int(path.read_text())

    def open_gate(self) -> None:
        """Here and on all hosts."""
        for home in (Path(os.environ["HOME"]), *(host.home for host in self.hosts.values())):
            (home / "gate").touch()

    def heard(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind that the journal has by now."""
        found = entries(self.directory / ".hsm" / "journal.jsonl")
        return [entry.event for entry in found if isinstance(entry.event, kind)]

    def wait_heard(self, kind: type[ev.Event], count: int = 1) -> None:
        """Wait until the journal has so many events of a kind."""
        wait_until(lambda: len(self.heard(kind)) >= count, f"{count} {kind.__name__}; launcher said:\n{self.said()}")

    def agent(self, source: str = "far") -> psutil.Process:
        """The agent on a source's host."""
        (found,) = self.agents(source)
        return found

    def agents(self, source: str = "far") -> list[psutil.Process]:
        return [p for p in self.hosts[source].programs("") if " agent " in f" {' '.join(p.cmdline())} "]

    def starts(self, index: int) -> list[int]:
        """The processes that have run a task so far, as its copy at home tells."""
        return [int(pid) for pid in self.output(index, "starts").read_text().split()]

    def finished(self) -> dict[int, tuple[str, int]]:
        """As of `Sweep`, but only of those tasks whose results are home."""
        found = {}
        for task in self.state().tasks.values():
            path = self.output(task.index, "result.txt")
            if task.state is TaskState.COMPLETED and path.exists():
                found[task.index] = (path.read_text(), path.stat().st_mtime_ns)
        return found

    def running(self) -> dict[str, int]:
        """By source the task that runs there now, the latest where there are several."""
        if not self.has_begun():
            return {}
        tasks = self.state().tasks.values()
        return {t.attempt.source: t.index for t in tasks if t.attempt is not None and t.state is TaskState.RUNNING}

    def submissions(self) -> Counter[int]:
        """How often each task was submitted."""
        return Counter(event.task for event in self.heard(ev.AttemptSubmitted))

    def wait_for_hosts(self) -> None:
        """Wait until nothing of the sweep runs on its hosts: no process of their users is left."""
        wait_until(lambda: not any(host.programs("") for host in self.hosts.values()), "the last process to end there")

    def audit(self) -> None:
        super().audit()
        self.wait_for_hosts()

    def assert_done_once(self, count: int) -> None:
        """Each task completed in its first attempt, and what it left is at home; and the audit."""
        state = self.state()
        assert {task.state for task in state.tasks.values()} == {TaskState.COMPLETED}, self.said()
        assert self.submissions() == dict.fromkeys(range(count), 1)
        for index in range(count):
            assert self.output(index, "result.txt").read_text() == f"{index}\n"
            assert len(self.starts(index)) == 1
        self.audit()


def _told(config: SourceConfig) -> dict[str, Any]:
    """A source's configuration as a file has it."""
    return {key: value for key, value in dataclasses.asdict(config).items() if value not in (None, [], {})}


MakeFar = Callable[..., FarSweep]
Sources = Mapping[str, tuple[SshHost, Mapping[str, Any]]]
"""by name the host of a source, and fields of its configuration"""


@pytest.fixture
def make_far(tmp_path: Path, ssh_home: SshHome, far_python: Path) -> Iterator[MakeFar]:
    """Makes sweeps: `make_far(host, {"trusted": True}, local=1, compute={..})` or `make_far({"name": (host, {}), ..})`.

    What is left of them at the end of the test is killed.
    """
    made: list[FarSweep] = []

    def make(hosts: SshHost | Sources, fields: Mapping[str, Any] | None = None, **more: Any) -> FarSweep:
        folder = tmp_path / f"sweep_{len(made)}"
        folder.mkdir()
        named = {"far": (hosts, fields or {})} if isinstance(hosts, SshHost) else hosts
        ours = {"python": str(far_python), "max_parallel_tasks": 2}
        sources = {name: (host, host.config(**{**ours, **fields})) for name, (host, fields) in named.items()}
        made.append(FarSweep(folder, sources, **more))
        return made[-1]

    yield make
    for sweep in made:
        sweep.end_launchers()
        sweep.wait_for_peace()


@pytest.fixture
def far(make_far: MakeFar, ssh_host: SshHost) -> FarSweep:
    """Two slots on one host."""
    return make_far(ssh_host)
