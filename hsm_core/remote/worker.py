"""The worker: composes one task's configuration, runs the task, reports what came of it.

It lives in a process of its own, the child of a slot (`hsm_core.remote.slot`), and reports to that
through a pipe: frames of one JSON object each.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import json
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

from hsm_core.remote import describe, gpus, place, process
from hsm_core.remote.app import App, EntryError, Payload, reach
from hsm_core.remote.places import Places
from hsm_core.remote.record import create

PICKLE_LIMIT = 64 << 20
"""bytes a pickled return value may have"""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
PATIENCE, RETRY = 600.0, 1.0
"""seconds that what a task leaves waits for room on a full disk, and between two tries"""
HEADER = struct.Struct("!I")
"""length in bytes of the frame that follows"""


def main(args: list[str]) -> NoReturn:
    """A worker in an interpreter of its own (`worker: spawn`): payload folder, two pipes, parent's pid."""
    folder, reports, specs, parent = args[0], int(args[1]), int(args[2]), int(args[3])
    process.die_with_parent(signal.SIGKILL, parent)
    process.reset_signals()
    for fd in (reports, specs):
        os.set_inheritable(fd, False)
    spec = _next_spec(specs)
    if spec is None:
        _end(0)
    mark(spec)
    try:
        reach(Payload.read(folder), lambda app: run(app, spec, reports, specs))
    except EntryError as e:
        send(
            reports,
            "report",
            {
                "status": "failed",
                "cause": "error",
                "message": str(e).splitlines()[0],
                "error": describe.text(e),
                "unreached": True,
            },
        )
        _end(1)
    raise AssertionError("reach() returns by an error only")


def mark(spec: Mapping[str, Any]) -> None:
    """Tell the task, and everything it starts, which attempt it belongs to and which GPUs it has."""
    os.environ.update(HSM_TASK=spec["name"], HSM_ATTEMPT=str(spec["attempt"]), HSM_SOURCE=spec["source"])
    if "gpus" in spec:
        gpus.show(spec["gpus"])


def send(reports: int, kind: str, body: Any) -> None:
    """Write one frame to the slot."""
    data = json.dumps({kind: body}).encode()
    process.write_all(reports, HEADER.pack(len(data)) + data)


def run(app: App, spec: Mapping[str, Any], reports: int, specs: int) -> NoReturn:
    """Run one task in this process and end the process; with `reuse` in the spec, run further ones first.

    The slot gets a frame `running` when the task function is about to be called, a frame `report`
    when it is done, and a frame `free` when another task may come. The last report counts; an earlier
    one stands for a process that does not live to send another. The process ends as an interpreter
    does, with its exit handlers run.
    """
    # Thousands of nodes of configurations come before the task function; the collector would look at each of them.
    collecting = gc.isenabled()
    following: Mapping[str, Any] | None = spec
    code = 0
    while following is not None:
        mark(following)
        gc.disable()
        code, completed = _attempt(app, following, reports, collecting)
        reuse = following["reuse"] and completed
        if reuse:
            send(reports, "free", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        following = _next_spec(specs) if reuse else None
    _end(code)


def _attempt(app: App, spec: Mapping[str, Any], reports: int, collecting: bool) -> tuple[int, bool]:
    """Run one task, with the garbage collector on if `collecting`, and report it.

    The exit code that belongs to it, and whether it completed: one that called `sys.exit(0)` did not.
    """
    code = 1
    try:
        begin = _Begin(reports, collecting, app.places)
        report = _run_job(app, spec, begin, lambda so_far: send(reports, "report", so_far))
        code = 0 if report["status"] == "completed" else 1
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        report = {
            "status": "failed",
            "cause": "error",
            "message": f"the task ended its process with exit code {code} (sys.exit)",
            "error": describe.error(e),
        }
    except place.OutputDirectoryError as e:
        report = {"status": "failed", **describe.failure(e), "error": describe.text(e)}
    except BaseException as e:
        report = {"status": "failed", **describe.failure(e)}
    send(reports, "report", report)
    return code, report["status"] == "completed"


def _next_spec(specs: int) -> Mapping[str, Any] | None:
    """Wait for an attempt; None when the slot has none any more."""
    data = b""
    while not data.endswith(b"\n"):
        chunk = os.read(specs, 65536)
        if not chunk:
            return None
        data += chunk
    spec: Mapping[str, Any] = json.loads(data)
    return spec


def _run_job(app: App, spec: Mapping[str, Any], begin: _Begin, tell: Callable[[Any], None]) -> dict[str, Any]:
    """Run one task; what there is to report of it, which `tell` gets as far as it is known before anything is pickled.

    Pickling runs code of the app, which may end the process.
    """
    from hydra.core.utils import JobStatus, run_job

    config = app.compose(spec["overrides"], spec["task"], last=not spec["reuse"])
    place.take(os.environ["HSM_SWEEP_DIR"], place.output_dir(config), spec["name"])
    callbacks = app.hydra_context.callbacks.callbacks
    callbacks.insert(0, begin)
    try:
        ret = run_job(
            hydra_context=app.hydra_context,
            task_function=app.function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    finally:
        del callbacks[0]
    report: dict[str, Any] = {"working_dir": ret.working_dir, "task_name": ret.task_name}
    if ret.status is JobStatus.COMPLETED:
        report["status"] = "completed"
        return report | _value(ret._return_value, spec["pickle"], lambda so_far: tell(report | so_far))
    error = ret._return_value
    report |= {"status": "failed", **describe.failure(error)}
    tell(report)
    if _pickled(error, spec["pickle"]) is None:
        report["pickle"] = spec["pickle"]
    return report


class _Begin:
    """A Hydra callback which marks the moment before the task function is called.

    By then Hydra has made the output directory: the task's output goes there from now on.
    """

    def __init__(self, reports: int, collecting: bool, places: Places | None) -> None:
        self._reports = reports
        self._collecting = collecting
        self._places = places

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        folder = config.hydra.runtime.output_dir
        try:
            redirect(folder)
        except OSError as e:
            # Raised here it would be logged by Hydra, and the task run without its output files.
            words = f"its output files can't be made: {e.strerror}: {e.filename}"
            send(self._reports, "report", {"status": "failed", "cause": "lost", "message": words})
            _end(1)
        if self._collecting:
            gc.enable()
        missing = [] if self._places is None else self._places.missing(config)
        send(self._reports, "running", {"output_dir": folder, **({"missing": missing} if missing else {})})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda **kwargs: None
        raise AttributeError(name)


def redirect(folder: str) -> None:
    """Send standard output and error to files in the task's output directory.

    Those of an earlier attempt are kept beside them as `stdout.1.log`, `stdout.2.log`, ...
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for fd, stream in ((1, "stdout"), (2, "stderr")):
        path = os.path.join(folder, f"{stream}.log")
        if os.path.exists(path):
            number = 1
            while os.path.exists(kept := os.path.join(folder, f"{stream}.{number}.log")):
                number += 1
            os.rename(path, kept)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, fd)
        os.close(file)
    for text in (sys.stdout, sys.stderr):
        if hasattr(text, "reconfigure"):
            text.reconfigure(line_buffering=True)


def _value(value: Any, path: str, tell: Callable[[Any], None]) -> dict[str, Any]:
    """What to report of a return value; what JSON can't hold exactly is pickled to `path`."""
    plain, exact = describe.plain(value)
    out: dict[str, Any] = {"return_value": {"value": plain, "exact": exact}}
    if exact:
        return out
    unsaved = f"the return value cannot be saved: {type(value).__name__}"
    tell({**out, "warning": f"{unsaved}: the process ended while it was pickled"})
    deadline = time.monotonic() + PATIENCE
    problem = _pickled(value, path)
    while isinstance(problem, OSError) and problem.errno in NO_SPACE and time.monotonic() < deadline:
        time.sleep(RETRY)
        problem = _pickled(value, path)
    if problem is None:
        return {**out, "pickle": path}
    return {**out, "warning": f"{unsaved}: {describe.message(problem)}"}


class _CappedFile:
    """A file that refuses to grow beyond a limit."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"larger than {PICKLE_LIMIT >> 20} MiB when pickled")
        return self._file.write(data)


class _Pickler(pickle.Pickler):
    """Pickles exceptions so that they can be loaded, whatever arguments their classes want."""

    def reducer_override(self, value: Any) -> Any:
        cls: Any = type(value)
        if isinstance(value, BaseException) and cls.__reduce__ is BaseException.__reduce__:
            return describe.rebuild, (cls, value.args, value.__dict__)
        return NotImplemented


def _pickled(value: Any, path: str) -> BaseException | None:
    """Pickle a value to a file of mode 0600; what was raised, and no file, where that is impossible."""
    try:
        with open(create(path), "wb") as f:
            _Pickler(_CappedFile(f, PICKLE_LIMIT), pickle.HIGHEST_PROTOCOL).dump(value)
        return None
    except BaseException as e:  # a __reduce__ of the app's may raise anything
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return e


def _end(code: int) -> NoReturn:
    """End the process as an interpreter ends: threads joined, exit handlers run, streams flushed.

    Returning instead would unwind into the app's entry, which ran once already.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)
