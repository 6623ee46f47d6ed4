"""How the launcher's own process came to its task function: what a zygote has to run again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hsm_core.remote.app import function_name

Entry = Mapping[str, Any]
"""kind (script or module), path, name, cwd, argv0, args, and the task function it must lead to"""

_HOSTS = frozenset({"_pytest", "unittest", "IPython", "ipykernel", "bdb", "pdb", "doctest", "code", "multiprocessing"})
"""top-level modules under which the main program is not the app's own and must not be run again"""


def find_entry(function: Callable[[Any], Any]) -> Entry | None:
    """The entry of this process that leads to `function`, None where there is none.

    There is one when Hydra's `_run_hydra` is on our stack and the main program's own code below
    it, with nothing between that runs programs for others (a test runner, a notebook, a
    debugger), and the program is a file or module that can be run again.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if main is None or path is None or not os.path.isfile(path) or not _called_from(main.__dict__):
        return None
    spec = getattr(main, "__spec__", None)
    entry: dict[str, Any] = {"path": path, "function": function_name(function)}
    if spec is None or spec.name == "__main__":  # a file, or a folder with a __main__.py
        word, arguments = _command(path)
        return {**entry, "kind": "script", "cwd": _start_folder(path, word), "argv0": word, "args": arguments}
    _, arguments = _command(spec.name.removesuffix(".__main__"))
    return {**entry, "kind": "module", "name": spec.name, "cwd": os.getcwd(), "argv0": path, "args": arguments}


def app_dir(entry: Entry | None) -> Path | None:
    """The folder that the app's own modules are imported from; None where no entry is known."""
    if entry is None:
        return None
    module = entry["name"] if entry["kind"] == "module" else entry["function"].split(":")[0]
    top = sys.modules.get(module.split(".")[0])
    places = list(getattr(top, "__path__", []))
    if places:
        return Path(places[0]).resolve().parent
    file = None if module == "__main__" else getattr(top, "__file__", None)
    return Path(file or entry["path"]).resolve().parent


def _called_from(main: Mapping[str, Any]) -> bool:
    frame: FrameType | None = sys._getframe()
    hydra = False
    while frame is not None:
        if frame.f_code.co_name == "_run_hydra" and frame.f_globals.get("__name__") == "hydra._internal.utils":
            hydra = True
        elif hydra and frame.f_globals is main and frame.f_code.co_name == "<module>":
            return True
        elif hydra and str(frame.f_globals.get("__name__")).split(".")[0] in _HOSTS:
            return False
        frame = frame.f_back
    return False


def _command(program: str) -> tuple[str, list[str]]:
    """How the program was named on the command line, and the arguments after that.

    They are as the process got them: the app may have changed sys.argv since.
    """
    original = sys.orig_argv
    for position, word in enumerate(original[1:], start=1):
        named = word in (program, f"-m{program}") or program.endswith(os.sep + word.removeprefix(f".{os.sep}"))
        if named or (word == sys.argv[0] and original[position - 1] != "-m"):
            return word, list(original[position + 1 :])
    return sys.argv[0], list(sys.argv[1:])


def _start_folder(path: str, word: str) -> str:
    """The folder in which the process was started, where that can be told; else the current one.

    Python makes a script's path absolute with it before the app can change folders.
    """
    start = path.removesuffix(word.removeprefix(f".{os.sep}"))
    return start if start != path and os.path.isdir(start) else os.getcwd()


def command_line() -> list[str]:
    """The command that started this process, interpreter first."""
    return [sys.executable, *sys.orig_argv[1:]]
