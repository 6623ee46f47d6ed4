"""Each task has a process of its own: what it does there harms no other task, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.integration.conftest import App

HEAD = """
import atexit
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import hydra
"""
MAIN = """
@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    return task(cfg.case)

if __name__ == "__main__":
    main()
"""


def write(app: App, body: str) -> None:
    """An app whose task is `task(case)` of this text."""
    app.write("train.py", HEAD + body + MAIN)


ENDINGS = """
def task(case):
    print("begun", case, flush=True)
    if case == "raise":
        raise ValueError("no luck")
    if case == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if case == "segfault":
        import faulthandler
        faulthandler.disable()
        ctypes.string_at(0)
    if case == "exit0":
        os._exit(0)
    if case == "exit3":
        os._exit(3)
    if case == "sysexit":
        sys.exit(4)
    if case == "sysexit0":
        sys.exit()
    if case == "abort":
        os.abort()
    return case
"""


def test_however_a_task_ends_it_harms_no_other(app: App, worker: str) -> None:
    write(app, ENDINGS)
    app.probed()
    cases = ["first", "raise", "kill", "second", "segfault", "exit0", "exit3", "sysexit", "sysexit0", "abort", "last"]
    sweep = app.sweep("hydra/sweeper=probe", worker, *(f"++case={case}" for case in cases))
    returned = {told[1].partition("=")[2]: [told[0], *told[2:]] for told in app.returned()}
    assert list(returned) == cases, "every JobReturn is there, in order"
    for case in ("first", "second", "last"):
        assert returned[case] == ["COMPLETED", "str", f"'{case}'"]
    outcomes = {case: sweep.outcome(number) for number, case in enumerate(cases)}
    assert {case: (o.cause.value, o.exit_code, o.signal) for case, o in outcomes.items() if o.cause is not None} == {
        "raise": ("error", 1, None),
        "kill": ("lost", None, signal.SIGKILL),
        "segfault": ("lost", None, signal.SIGSEGV),
        "exit0": ("error", 0, None),
        "exit3": ("error", 3, None),
        "sysexit": ("error", 4, None),
        "sysexit0": ("error", 0, None),
        "abort": ("lost", None, signal.SIGABRT),
    }
    assert "SIGKILL" in returned["kill"][2]
    assert "exited with code 3" in returned["exit3"][2]
    assert [text.split()[-1] for text in sweep.texts()] == cases


SPOILS = """
import logging
import warnings
from omegaconf import OmegaConf

counter = []

def state():
    return {
        "counter": len(counter), "cwd": os.getcwd(), "umask": os.umask(0o022), "env": os.environ.get("SPOILT"),
        "int": str(signal.getsignal(signal.SIGINT)), "usr1": str(signal.getsignal(signal.SIGUSR1)),
        "alarm": signal.alarm(0), "path": len(sys.path), "threads": threading.active_count(),
        "handlers": len(logging.root.handlers), "resolver": OmegaConf.has_resolver("spoilt"),
        "modules": "antigravity_of_ours" in sys.modules, "limit": sys.getrecursionlimit(),
        "stdout": type(sys.stdout).__name__, "argv": len(sys.argv), "nice": os.nice(0),
        "session": os.getsid(0) == os.getpid(),
        "fds": len(os.listdir("/proc/self/fd")), "children": len(psutil.Process().children(recursive=True)),
    }

def task(case):
    found = state()
    counter.append(case)
    os.chdir("/")
    os.environ["SPOILT"] = "yes"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *args: None)
    signal.alarm(1000)
    sys.path.insert(0, "/spoilt")
    sys.modules["antigravity_of_ours"] = sys
    sys.setrecursionlimit(5000)
    sys.argv.append("spoilt")
    logging.root.addHandler(logging.NullHandler())
    OmegaConf.register_new_resolver("spoilt", lambda: 1)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    open(os.devnull)
    os.nice(1)
    sys.stdout = open(os.devnull, "w")
    os.close(1)
    return found
"""


def test_nothing_leaks_from_task_to_task(app: App, worker: str) -> None:
    write(app, "import psutil\n" + SPOILS)
    sweep = app.sweep("+case=1,2,3", worker, "hydra.launcher.sources='local:1'")
    first, *others = (sweep.outcome(task).return_value for task in range(3))
    assert first["counter"] == 0
    assert first["session"]
    assert others == [first, first]


CHILDREN = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

def square(x):
    return x * x

def put(queue, x):
    queue.put(square(x))

def pool(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as workers:
        squares = workers.map(square, range(4))
    queue = context.Queue()
    process = context.Process(target=put, args=(queue, 4))
    process.start()
    squares.append(queue.get())
    process.join()
    return squares

def task(case):
    if case in ("fork", "spawn", "forkserver"):
        return pool(case)
    if case == "processes":
        with ProcessPoolExecutor(2) as executor:
            return list(executor.map(square, range(5)))
    if case == "threads":
        with ThreadPoolExecutor(2) as executor:
            return list(executor.map(square, range(5)))
    command = [sys.executable, "-c", "print([x * x for x in range(5)])"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
"""


def test_tasks_may_have_children(app: App, worker: str) -> None:
    write(app, CHILDREN)
    sweep = app.sweep("+case=fork,spawn,forkserver,processes,threads,subprocess", worker)
    outcomes = [sweep.outcome(task) for task in range(6)]
    assert [outcome.return_value for outcome in outcomes] == [[0, 1, 4, 9, 16]] * 6
    assert [outcome.warning for outcome in outcomes] == [None] * 6


def test_what_a_task_leaves_behind_is_ended(app: App, worker: str) -> None:
    write(
        app,
        """
def task(case):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.write(write, str(os.getpid()).encode())
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)
    os.wait()
    return int(os.read(read, 100))
""",
    )
    sweep = app.sweep("+case=1", worker)
    outcome = sweep.outcome(0)
    assert outcome.completed
    assert outcome.warning is not None
    assert "1 process the task left behind" in outcome.warning
    assert outcome.warning in sweep.said
    assert not psutil.pid_exists(outcome.return_value)


RANDOM = """
import numpy
generator = numpy.random.default_rng()
legacy = numpy.random.RandomState()
own = random.Random()
seeded = [numpy.random.default_rng(3), numpy.random.RandomState(3), random.Random(3)]

def task(case):
    free = [random.random(), numpy.random.rand(), generator.random(), legacy.rand(), own.random()]
    free += [numpy.random.default_rng().random(), random.Random().random()]
    return [free, [seeded[0].random(), seeded[1].rand(), seeded[2].random()]]
"""


def test_random_numbers_nobody_seeded_differ_between_tasks(app: App, worker: str) -> None:
    write(app, RANDOM)
    sweep = app.sweep("+case=1,2,3", worker)
    drawn = [sweep.outcome(task).return_value for task in range(3)]
    for numbers in zip(*(free for free, _ in drawn), strict=True):
        assert len(set(numbers)) == 3
    assert all(seeded == drawn[0][1] for _, seeded in drawn)


def test_generators_seeded_at_import_are_the_same_in_every_task(app: App, worker: str) -> None:
    seeds = "import numpy\nrandom.seed(1)\nnumpy.random.seed(1)\n"
    write(app, seeds + "def task(case):\n    return [random.random(), numpy.random.rand(), numpy.random.normal()]\n")
    sweep = app.sweep("+case=1,2", worker)
    assert sweep.outcome(0).return_value == sweep.outcome(1).return_value
    assert sweep.outcome(0).return_value[0] == 0.13436424411240122


ENDS = """
atexit.register(lambda: open("at_import", "w").close())

def task(case):
    os.chdir(os.environ["HERE"])
    atexit.register(lambda: print("from the exit handler"))
    thread = threading.Timer(0.05, lambda: print("from a thread"))
    thread.start()
    print("x" * 300_000)
    os.write(2, b"raw \\xff bytes\\n")
    subprocess.run(["sh", "-c", "echo from a child; echo to stderr >&2"])
    print("no end of line", end=" ")
    block = bytearray(200 << 20)
    return len(block)
"""


def test_output_exit_handlers_and_figures(app: App, worker: str) -> None:
    write(app, ENDS)
    sweep = app.sweep("+case=1", worker, env={"HERE": str(app.folder)})
    assert (app.folder / "at_import").exists()
    lines = sweep.text(0).split("\n")
    assert lines == ["x" * 300_000, "from a child", "no end of line from a thread", "from the exit handler", ""]
    assert (sweep.directory / "0" / "stderr.log").read_bytes() == b"raw \xff bytes\nto stderr\n"
    record = sweep.record(0)
    assert 200 < record["peak_memory"] < 1000
    assert 0.05 < record["duration"] < 60
    assert record["exit_code"] == 0
    assert record["host"] == os.uname().nodename


def test_threads_named_by_the_user_stay(app: App) -> None:
    write(app, "def task(case):\n    return [os.environ[f'{name}_NUM_THREADS'] for name in ('OMP', 'MKL')]\n")
    options = ["+case=1", "hydra.launcher.sources='local:1'", "hydra.launcher.threads_per_task=3"]
    sweep = app.sweep(*options, env={"OMP_NUM_THREADS": "7"})
    assert sweep.outcome(0).return_value == ["7", "3"]


def test_an_app_that_starts_threads_is_not_forked(app: App) -> None:
    threads = "threading.Thread(target=threading.Event().wait, name='app-thread', daemon=True).start()\n"
    write(app, threads + "def task(case):\n    return [t.name for t in threading.enumerate()]\n")
    sweep = app.sweep("+case=1,2")
    assert [sweep.outcome(task).return_value for task in range(2)] == [["MainThread", "app-thread"]] * 2
    assert "app-thread: each task gets a new interpreter instead of a fork" in sweep.said
