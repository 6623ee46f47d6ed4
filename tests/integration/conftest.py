"""Small Hydra apps in folders of their own, run as their users would: as programs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm_core.journal import replay
from hsm_core.state import SweepState
from hsm_core.task import Outcome

Finished = subprocess.CompletedProcess[str]

SCRIPT = ("train.py",)
CONFIG = "lr: 1\n"

PROBE = '''
"""A sweeper that starts one job for each argument and has the app's module `look` tell of what comes back."""
import json
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class ProbeSweeper(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        import look
        returns = self.launcher.launch([[argument] for argument in arguments], initial_job_idx=0)
        with open("returns.json", "w") as f:
            json.dump([look.look(job) for job in returns], f)

ConfigStore.instance().store(group="hydra/sweeper", name="probe", node={"_target_": "hydra_plugins.probe.ProbeSweeper"})
'''

LOOK = '''
def look(job):
    """Status, overrides, and the value's or the exception's type and text."""
    try:
        value = job.return_value
    except BaseException as e:
        return [job.status.name, *job.overrides, type(e).__name__, str(e)]
    text = f"{value.bit_length()} bits" if type(value) is int else repr(value)
    return [job.status.name, *job.overrides, type(value).__name__, text]
'''


class Sweep:
    """A sweep that was run: its directory, and what its launcher printed."""

    def __init__(self, directory: Path, done: Finished) -> None:
        self.directory = directory
        self.done = done
        self.said = done.stdout + done.stderr

    @property
    def state(self) -> SweepState:
        return replay(self.directory / ".hsm" / "journal.jsonl").state

    def outcome(self, task: int) -> Outcome:
        outcome = self.state.tasks[task].outcome
        assert outcome is not None
        return outcome

    def record(self, task: int) -> dict[str, Any]:
        """The result record of a task's first attempt."""
        path = self.directory / ".hsm" / "results" / f"task_{task + 1:03d}.1.1.json"
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    def text(self, task: int, name: str = "stdout.log") -> str:
        """A file in a task's output directory."""
        return (self.directory / str(task) / name).read_text()

    def texts(self, name: str = "stdout.log") -> list[str]:
        """This file of every task, in order."""
        return [self.text(task, name) for task in sorted(self.state.tasks)]


class App:
    """A folder with a Hydra app, `train.py` unless a test says otherwise."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "app"
        self.folder.mkdir()
        ours = ("HSM_", "PYTEST_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment |= {"XDG_STATE_HOME": str(root / "state"), "XDG_CONFIG_HOME": str(root / "config")}
        self.write("conf/config.yaml", CONFIG)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the app; returns its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def probed(self, look: str = LOOK) -> None:
        """Bring the sweeper `probe` along; `look` is the text of the module that is shown every JobReturn."""
        self.write("hydra_plugins/probe.py", PROBE)
        self.write("look.py", look)

    def command(self, program: Sequence[str], arguments: Sequence[str]) -> list[str]:
        return [sys.executable, *program, *arguments]

    def run(
        self,
        *arguments: str,
        program: Sequence[str] = SCRIPT,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        code: int = 0,
    ) -> Finished:
        """Run the app to its end, which must come with this exit code."""
        done = subprocess.run(
            self.command(program, arguments),
            cwd=cwd or self.folder,
            env=self.environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def sweep(self, *overrides: str, launcher: str = "hsm", to: str = "out", **how: Any) -> Sweep:
        """Run a multirun into the directory `to` of the app's folder."""
        options = ["-m", f"hydra/launcher={launcher}", f"hydra.sweep.dir={to}"]
        return Sweep(self.folder / to, self.run(*options, *overrides, **how))

    @contextmanager
    def started(
        self, *overrides: str, to: str = "out", program: Sequence[str] = SCRIPT
    ) -> Iterator[subprocess.Popen[str]]:
        """A multirun that runs while the test does something; it must have ended when the block does."""
        options = ["-m", "hydra/launcher=hsm", f"hydra.sweep.dir={to}", *overrides]
        with subprocess.Popen(
            self.command(program, options),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def returned(self) -> list[list[Any]]:
        """What the module `look` told of each JobReturn, in order."""
        told: list[list[Any]] = json.loads((self.folder / "returns.json").read_text())
        return told


class Gate:
    """Holds up the first task that runs `WAIT`, until the test opens the gate: two named pipes, no clock."""

    WAIT = "os.path.exists('ready') and (open('ready', 'w').close(), open('go').close())"

    def __init__(self, folder: Path) -> None:
        self._ready, self._go = folder / "ready", folder / "go"
        os.mkfifo(self._ready)
        os.mkfifo(self._go)
        self._descriptor = os.open(self._ready, os.O_RDONLY | os.O_NONBLOCK)

    def reached(self, process: subprocess.Popen[str]) -> str:
        """Wait until the task stands at the gate; returns what the launcher has said so far."""
        assert process.stdout is not None
        said = ""
        ends: list[Any] = [self._descriptor, process.stdout]
        while self._descriptor not in select.select(ends, [], [])[0]:
            line = process.stdout.readline()
            assert line, f"the launcher ended before a task began\n{said}"
            said += line
        return said

    def open(self) -> None:
        """Let the task pass; later ones find no gate."""
        os.close(self._descriptor)
        self._ready.unlink()
        self._go.open("w").close()


@pytest.fixture
def gate(app: App) -> Gate:
    """The gate in the app's folder."""
    return Gate(app.folder)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """One app for all tests of a module."""
    return App(tmp_path_factory.mktemp("shared"))


@pytest.fixture(params=["fork", "spawn"])
def worker(request: pytest.FixtureRequest) -> str:
    """The override for each way to start workers."""
    return f"hydra.launcher.worker={request.param}"
