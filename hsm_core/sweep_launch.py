"""Where and with what `hsm run` starts a sweep: the app's program and a directory of its own."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NoReturn

from hsm_core.exceptions import ConfigError, HsmError, SweepError
from hsm_core.suggest import did_you_mean
from hsm_core.sweep_file import SweepFile
from hsm_core.text import printable

OUTPUTS = Path("sweeps") / "outputs"
"""where sweeps that hsm starts are kept, below the current directory"""
STARTED_BY = "HSM_STARTED_BY"
"""Environment variable that tells a launcher which command of hsm it goes on for: `run` or `complete`."""


def program(sweep_file: SweepFile, cwd: Path) -> list[str]:
    """Interpreter and app. A script is looked for beside the sweep file, then in `cwd`; a module as Python would.

    Raises ConfigError when there is no such app.
    """
    if sweep_file.app.startswith("-m"):
        module = sweep_file.app.removeprefix("-m").strip()
        if not _module_exists(module, [str(cwd), *sys.path]):
            raise _no_app(sweep_file, f"there is no module {module} in {cwd} or among the installed packages")
        return [sys.executable, "-m", module]
    folders = list(dict.fromkeys([Path(os.path.abspath(sweep_file.path.parent)), cwd]))
    for folder in folders:
        if (folder / sweep_file.app).is_file():
            return [sys.executable, str(folder / sweep_file.app)]
    scripts = [script.name for folder in folders for script in folder.glob("*.py")]
    where = " or in ".join(str(folder) for folder in folders)
    raise _no_app(sweep_file, f"there is no {sweep_file.app} in {where}{did_you_mean(sweep_file.app, scripts)}")


def next_directory(cwd: Path, now: float) -> Path:
    """The directory, relative to `cwd`, that a sweep started now would get; nothing is made."""
    return next(path for path in _candidates(now) if not (cwd / path).exists())


def reserve_directory(cwd: Path, now: float) -> Path:
    """Make a new directory for a sweep started now; relative to `cwd`.

    No two sweeps get the same one, however close together they start. Raises SweepError when it can't be made.
    """
    for path in _candidates(now):
        try:
            (cwd / path).parent.mkdir(parents=True, exist_ok=True)
            (cwd / path).mkdir()
        except FileExistsError:
            if not (cwd / path.parent).is_dir():
                raise SweepError(f"{printable(str(cwd / path.parent))} is in the way: it is no directory.") from None
            continue
        except OSError as e:
            raise SweepError(
                f"The sweep's directory {printable(str(cwd / path))} can't be made: {e.strerror}. "
                "Sweeps are kept below the current directory; start from one that you may write to."
            ) from e
        return path
    raise AssertionError("unreachable: the numbers never end")


def become(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run a program in place of this process. Raises HsmError when that is impossible."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        os.execve(arguments[0], list(arguments), dict(environment))  # noqa: S606 - no shell is wanted
    except OSError as e:
        raise cannot_run(arguments[0], e) from e


def cannot_run(program: str, error: OSError) -> HsmError:
    """What the system's refusal to run a program means."""
    if error.errno == errno.E2BIG:
        return HsmError(
            "The lists of values make a command line longer than this system takes. "
            "Write them as text that Hydra expands, such as range(0,10000), or split the sweep."
        )
    return HsmError(f"{printable(program)} can't be run: {error.strerror}")


def _candidates(now: float) -> Iterator[Path]:
    name = time.strftime("sweep_%Y%m%d_%H%M%S", time.localtime(now))
    yield OUTPUTS / name
    for number in itertools.count(2):
        yield OUTPUTS / f"{name}_{number}"


def _module_exists(name: str, path: Sequence[str]) -> bool:
    """Whether the module or package can be found; nothing of it is imported."""
    for part in name.split("."):
        # By its last name only: a dotted one makes the finder ask for a parent that nobody imported.
        spec = PathFinder.find_spec(part, list(path)) if part.isidentifier() else None
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or [])
    return True


def _no_app(sweep_file: SweepFile, problem: str) -> ConfigError:
    return ConfigError([printable(f"{sweep_file.path}: app: {problem}")])
