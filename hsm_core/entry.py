"""How the launcher's own process came to its task function: what a zygote has to run again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hsm_core.remote.app import function_name

Entry = Mapping[str, Any]
"""kind (script or module), path, name, argv0, args, and the task function it must lead to"""

_HOSTS = frozenset({"_pytest", "unittest", "IPython", "ipykernel", "bdb", "pdb", "doctest", "code", "multiprocessing"})
"""top-level modules under which the main program is not the app's own and must not be run again"""


def find_entry(function: Callable[[Any], Any]) -> Entry | None:
    """The entry of this process that leads to `function`, None where there is none.

    There is one when Hydra's `_run_hydra` is on our stack and the main program's own code below
    it, with nothing between that runs programs for others (a test runner, a notebook, a
    debugger).
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if main is None or path is None or not _called_from(main.__dict__):
        return None
    spec = getattr(main, "__spec__", None)
    entry: dict[str, Any] = {"path": path, "argv0": sys.argv[0], "function": function_name(function)}
    if spec is None:
        return {**entry, "kind": "script", "args": _arguments(path)}
    name = spec.name.removesuffix(".__main__") if spec.name.endswith(".__main__") else spec.name
    return {**entry, "kind": "module", "name": spec.name, "args": _arguments(name)}


def app_dir(entry: Entry | None) -> Path | None:
    """The folder that the app's own modules are imported from; None where no entry is known."""
    if entry is None:
        return None
    if entry["kind"] == "module":
        top = sys.modules.get(entry["name"].split(".")[0])
        places = list(getattr(top, "__path__", []))
        return Path(places[0]).resolve().parent if places else Path(entry["path"]).resolve().parent
    module = entry["function"].split(":")[0]
    if module == "__main__":
        return Path(entry["path"]).resolve().parent
    top = sys.modules.get(module.split(".")[0])
    file = getattr(top, "__file__", None)
    return Path(entry["path"] if file is None else file).resolve().parent


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


def _arguments(program: str) -> list[str]:
    """The program's arguments as the process got them, before the app may have changed sys.argv."""
    original = sys.orig_argv
    for position, word in enumerate(original[1:], start=1):
        if word == program or (word == sys.argv[0] and original[position - 1] != "-m"):
            return list(original[position + 1 :])
    return list(sys.argv[1:])


def command_line() -> list[str]:
    """The command that started this process, interpreter first."""
    return [sys.executable, *sys.orig_argv[1:]]
