"""The conformance suite for sources: what the engine relies on, for yours as for ours.

    class TestMySource(SourceSuite):
        @pytest.fixture
        def source(self) -> Source:
            return MySource("mine", SourceConfig(type="mine"), slots=2)

The tests run a small Hydra app on the source. They want the source's tasks to see the sweep
directory that the test made; a source without shared files brings it home by `collect`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from hsm_core import payload
from hsm_core.config import HsmConfig, LoggingConfig
from hsm_core.conformance.app import APP
from hsm_core.conformance.hostile import HostileTasks
from hsm_core.events import AttemptFinished, AttemptStarted, SourceEvent
from hsm_core.exceptions import Unavailable
from hsm_core.multirun import Multirun
from hsm_core.sources.base import Source, SweepContext
from hsm_core.task import Attempt, Cause, Task, TaskState

PATIENCE = 60.0
"""seconds the suite waits for an event before it calls it missing"""
MAX_OUTPUT = 32
"""MiB that a task of the suite may print"""


class Bench:
    """A sweep directory with the app's payload, and the events a source posts."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.directory = folder / "sweep"
        self.events: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()
        self.seen: list[SourceEvent] = []
        self._key = f"sweep_test-{uuid.uuid4()}"
        self._made: dict[int, Attempt] = {}
        self._app = folder / "app" / "app.py"
        self._app.parent.mkdir(parents=True)
        self._app.write_text(APP)
        for name in ("results", "agents"):
            (self.directory / ".hsm" / name).mkdir(parents=True)

    def start(self, epoch: int = 1) -> None:
        self.write_payload()
        self.source.start(self.context(epoch), self.events.put)

    def context(self, epoch: int) -> SweepContext:
        hsm = self.directory / ".hsm"
        config = HsmConfig(grace=1.0, logging=LoggingConfig(max_output=MAX_OUTPUT))
        return SweepContext("sweep_test", self._key, self.directory, epoch, hsm / "payload", config, 1)

    def write_payload(self) -> None:
        """What `hsm_core.session` does for a launcher, for the suite's app."""
        GlobalHydra.instance().clear()
        try:
            hydra = Hydra.create_main_hydra2("app", create_automatic_config_search_path(str(self._app), None, None))
            overrides = [f"hydra.sweep.dir='{self.directory}'", "hydra.mode=MULTIRUN", "+do=return", "+value=1"]
            config = hydra.config_loader.load_configuration(None, overrides, RunMode.MULTIRUN)
            config.hydra.overrides.task.clear()
            entry = {"kind": "script", "path": str(self._app), "argv0": str(self._app), "args": [], "cwd": os.getcwd()}
            entry["function"] = "__main__:main"
            hsm = self.directory / ".hsm"
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
            snapshot = payload.freeze(hsm / "snapshot", config, entry)
            payload.write(hsm / "payload", snapshot, Multirun.of(config, context, _no_function), (), entry)
        finally:
            GlobalHydra.instance().clear()

    def attempt(
        self,
        index: int,
        *overrides: str,
        number: int = 1,
        timeout: float | None = None,
        memory: float | None = None,
    ) -> Attempt:
        """An attempt of the suite's app. Overrides of `hydra.` stand as they are, the others are added keys."""
        own = tuple(o if o.startswith("hydra.") else f"+{o}" for o in overrides)
        attempt = Attempt(Task(index, own, f"key{index}"), number, 1, self.source.name, timeout, 1.0, memory)
        self._made.setdefault(index, attempt)
        return attempt

    def wait(self, wanted: Callable[[SourceEvent], bool]) -> SourceEvent:
        """The next event that fits; earlier ones are kept in `seen`. Fails after `PATIENCE` seconds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"the event did not come; these did: {self.seen}")
            self.seen.append(event)
            if wanted(event):
                return event

    def started(self, attempt: Attempt) -> AttemptStarted:
        kinds = (AttemptStarted, AttemptFinished)
        event = self.wait(lambda e: isinstance(e, kinds) and e.task == attempt.task.index)
        assert isinstance(event, AttemptStarted), f"it ended before it started: {event}"
        return event

    def finished(self, attempt: Attempt) -> AttemptFinished:
        """How the attempt ended; it must not have ended before."""
        event = self.wait(lambda e: isinstance(e, AttemptFinished) and e.task == attempt.task.index)
        assert isinstance(event, AttemptFinished)
        assert (event.attempt, event.epoch, event.source) == (attempt.number, attempt.epoch, self.source.name)
        return event

    def ended(self, attempt: Attempt) -> AttemptFinished:
        """How the attempt ended, now or before."""
        for event in self.seen:
            if isinstance(event, AttemptFinished) and event.task == attempt.task.index:
                return event
        return self.finished(attempt)

    def run(self, index: int, *overrides: str, **how: Any) -> AttemptFinished:
        attempt = self.attempt(index, *overrides, **how)
        self.source.submit([attempt])
        return self.finished(attempt)

    def record(self, event: AttemptFinished) -> Mapping[str, Any]:
        assert event.outcome.record is not None
        record: Mapping[str, Any] = json.loads((self.directory / event.outcome.record).read_text())
        return record

    @property
    def records(self) -> Path:
        return self.directory / ".hsm" / "results"

    def leftovers(self) -> list[str]:
        """Files among the result records that no record names."""
        named = {record.name for record in self.records.glob("*.json")}
        named |= {json.loads((self.records / record).read_text()).get("pickle") for record in named}
        return sorted(path.name for path in self.records.iterdir() if path.name not in named)

    def output(self, index: int, name: str) -> Path:
        return self.directory / str(index) / name

    def assert_ended(self, index: int, *names: str) -> None:
        """The processes with the pids in these files of a task's output have ended."""
        for name in names:
            self.wait_for_file(self.output(index, name))
            pid = int(self.output(index, name).read_text())
            assert not alive(pid), f"the process that task {index} noted as {name} still runs"

    def bring_home(self) -> None:
        """Have what the attempts made so far left in the sweep directory."""
        self.source.collect(list(self._made.values()))

    def wait_for_file(self, path: Path) -> None:
        def is_there() -> bool:
            if not path.exists():
                self.bring_home()
            return path.exists()

        wait_until(is_there, f"{path} to appear")


def _no_function(config: Any) -> None:
    """The payload names the app's entry; its function is never sent."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds; fails after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process of this machine lives; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except ProcessLookupError:  # it ended between the two calls
        return False
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc").is_dir()


class SourceSuite(HostileTasks):
    """The tests. A subclass gives the fixture `source`: a new source with at least two slots."""

    large = 10 << 30
    """bytes of the largest file that a task leaves"""

    @pytest.fixture
    def source(self) -> Source:
        raise NotImplementedError("a subclass of SourceSuite defines the fixture `source`")

    @pytest.fixture
    def bench(self, source: Source, tmp_path: Path) -> Iterator[Bench]:
        bench = Bench(source, tmp_path)
        bench.start()
        yield bench
        source.stop(10.0)

    def test_completed(self, bench: Bench) -> None:
        attempt = bench.attempt(0, "do=return", "value={a:[1,2.5,null],b:'ü'}")
        bench.source.submit([attempt])
        started = bench.started(attempt)
        finished = bench.finished(attempt)
        bench.bring_home()
        assert started.pid is not None
        assert started.output_dir is not None
        assert finished.outcome.completed
        assert finished.outcome.return_value == {"a": [1, 2.5, None], "b": "ü"}
        assert finished.outcome.duration is not None
        assert finished.outcome.duration > 0
        assert finished.outcome.peak_memory is not None
        assert finished.outcome.peak_memory > 1
        assert {p.name for p in bench.output(0, "").iterdir()} >= {".hydra", "stdout.log", "stderr.log", "pid"}

    def test_every_attempt_of_a_batch_ends_once(self, bench: Bench) -> None:
        attempts = [bench.attempt(i, "do=return", f"value={i}") for i in range(6)]
        bench.source.submit(attempts)
        ended = [bench.wait(lambda e: isinstance(e, AttemptFinished)) for _ in attempts]
        assert sorted(e.outcome.return_value for e in ended if isinstance(e, AttemptFinished)) == list(range(6))
        assert bench.run(6, "do=return", "value=6").outcome.completed
        assert sum(isinstance(e, AttemptFinished) for e in bench.seen) == 7

    def test_exception(self, bench: Bench) -> None:
        finished = bench.run(0, "do=raise")
        assert finished.outcome.cause is Cause.ERROR
        assert finished.outcome.message == "ValueError: no luck with it"
        assert 'raise ValueError("no luck with it")' in bench.record(finished)["error"]["traceback"]

    @pytest.mark.parametrize(("do", "words"), [("exit", "without reporting a result"), ("sysexit", "(sys.exit)")])
    @pytest.mark.parametrize("code", [0, 3])
    def test_exit_without_a_result(self, bench: Bench, do: str, code: int, words: str) -> None:
        finished = bench.run(0, f"do={do}", f"code={code}")
        assert (finished.outcome.status, finished.outcome.cause) == (TaskState.FAILED, Cause.ERROR)
        assert finished.outcome.exit_code == code
        assert words in finished.outcome.message

    @pytest.mark.parametrize(("do", "number"), [("signal", 9), ("segfault", 11)])
    def test_ended_by_a_signal(self, bench: Bench, do: str, number: int) -> None:
        beside = bench.attempt(1, "do=hang", "stubborn=false")
        bench.source.submit([beside])
        bench.started(beside)
        finished = bench.run(0, f"do={do}", "number=9")
        assert finished.outcome.cause is Cause.LOST
        assert finished.outcome.signal == number
        assert f"signal {number}" in finished.outcome.message
        bench.source.cancel([beside])
        assert bench.finished(beside).outcome.cause is Cause.CANCELLED

    def test_time_limit_of_a_task_that_ignores_sigterm(self, bench: Bench) -> None:
        attempt = bench.attempt(0, "do=hang", "stubborn=true", timeout=4.0)
        bench.source.submit([attempt])
        finished = bench.finished(attempt)
        assert finished.outcome.cause is Cause.TIMEOUT
        assert "time limit of 4 s" in finished.outcome.message
        bench.assert_ended(0, "pid", "child")
        assert bench.run(1, "do=return", "value=1").outcome.completed

    def test_out_of_memory(self, bench: Bench) -> None:
        finished = bench.run(0, "do=eat", "mib=600", memory=200.0)
        assert finished.outcome.cause is Cause.OOM
        assert finished.outcome.message.startswith("out of memory (limit 200 MiB, peak ")
        assert bench.run(1, "do=eat", "mib=24", memory=200.0).outcome.completed

    def test_a_task_ends_with_the_process_that_watches_it(self, bench: Bench) -> None:
        """The watcher alone is killed: the task and all it started end, and none writes where the next one does."""
        attempt = bench.attempt(0, "do=hang", "stubborn=true")
        bench.source.submit([attempt])
        started = bench.started(attempt)
        bench.wait_for_file(bench.output(0, "hanging"))
        assert started.pid is not None
        os.kill(psutil.Process(started.pid).ppid(), signal.SIGKILL)
        finished = bench.finished(attempt)
        assert finished.outcome.cause is Cause.LOST
        bench.assert_ended(0, "pid", "child")
        again = bench.attempt(0, "do=return", "value=2", number=2)
        bench.source.submit([again])
        assert bench.finished(again).outcome.completed
        bench.source.collect([again])
        assert bench.output(0, "stdout.1.log").read_text() == "hanging\n"

    def test_cancel_is_idempotent(self, bench: Bench) -> None:
        running, done = bench.attempt(0, "do=hang", "stubborn=true"), bench.attempt(1, "do=return", "value=1")
        bench.source.submit([running, done])
        bench.finished(done)
        bench.wait_for_file(bench.output(0, "hanging"))
        bench.source.cancel([running, done])
        bench.source.cancel([running, done])
        assert bench.finished(running).outcome.cause is Cause.CANCELLED
        bench.source.cancel([running])
        bench.assert_ended(0, "pid", "child")
        assert bench.run(2, "do=return", "value=2").outcome.completed
        assert sum(isinstance(e, AttemptFinished) for e in bench.seen) == 3

    def test_what_a_task_leaves_behind_is_ended(self, bench: Bench) -> None:
        finished = bench.run(0, "do=daemon")
        assert finished.outcome.completed
        assert "1 process the task left behind" in (finished.outcome.warning or "")
        bench.assert_ended(0, "child")

    def test_any_output_is_kept_and_harms_nothing(self, bench: Bench) -> None:
        assert bench.run(0, "do=noise", "megabytes=20").outcome.completed
        bench.bring_home()
        data = bench.output(0, "stdout.log").read_bytes()
        assert data == bytes(range(256)) * 64 + b"\x1b]0;evil\x07" + b"x" * 20_000_000

    def test_output_beyond_its_limit_is_cut_in_the_middle(self, bench: Bench) -> None:
        assert bench.run(0, "do=noise", "megabytes=100").outcome.completed
        bench.bring_home()
        data = bench.output(0, "stdout.log").read_bytes()
        assert len(data) <= MAX_OUTPUT << 20
        assert data.startswith(bytes(range(256)) * 64 + b"\x1b]0;evil\x07x")
        assert data.endswith(b"x")
        assert data.count(f"\n[hsm: output truncated at {MAX_OUTPUT << 19} bytes".encode()) == 1

    def test_many_tiny_files_and_a_large_one(self, bench: Bench) -> None:
        size = self.large  # with a hole in it: no byte of it takes room
        assert bench.run(0, "do=litter", "count=2000", f"size={size}").outcome.completed
        bench.bring_home()
        assert sum(path.name.startswith("tiny_") for path in bench.output(0, "").iterdir()) == 2000
        assert bench.output(0, "checkpoint").stat().st_size == size

    def test_run_command(self, bench: Bench) -> None:
        result = bench.source.run_command(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")

    def test_run_command_that_fails(self, bench: Bench) -> None:
        with pytest.raises(Unavailable):
            bench.source.run_command(["no-such-program-anywhere"])
        with pytest.raises(Unavailable):
            bench.source.run_command(["sleep", "600"], timeout=0.2)

    def test_health(self, bench: Bench) -> None:
        health = bench.source.health()
        assert health is None or (health.latency >= 0 and health.uptime > 0)

    def test_attach_settles_what_an_earlier_launcher_left(self, bench: Bench) -> None:
        done, never = bench.attempt(0, "do=return", "value=7"), bench.attempt(1, "do=return", "value=8")
        bench.source.submit([done])
        bench.finished(done)
        bench.source.attach([done, never])
        assert bench.finished(done).outcome.return_value == 7
        assert bench.finished(never).outcome.cause is Cause.LOST

    def test_stop_leaves_nothing(self, bench: Bench) -> None:
        attempts = [bench.attempt(i, "do=hang", "stubborn=true") for i in range(2)]
        bench.source.submit(attempts)
        for index in range(2):
            bench.wait_for_file(bench.output(index, "hanging"))
        bench.source.stop(5.0)
        bench.source.stop(5.0)
        for index in range(2):
            bench.assert_ended(index, "pid", "child")

    def test_leave_lets_run_what_needs_no_launcher(self, bench: Bench) -> None:
        attempt = bench.attempt(0, "do=hang", "stubborn=true")
        bench.source.submit([attempt])
        bench.wait_for_file(bench.output(0, "hanging"))
        bench.source.leave(5.0)
        bench.source.leave(5.0)
        assert alive(int(bench.output(0, "pid").read_text())) == bench.source.outlives_launcher
