"""Start of every process on the compute side: `python <this file> agent|zygote|worker ...`.

The file is run by its path, with any Python 3.10+. It makes `hsm_core` importable without
putting the folder that holds it on `sys.path`, where its neighbours could shadow the app's
own modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys


def _make_importable() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    package = os.path.dirname(here)
    spec = importlib.util.spec_from_file_location(
        "hsm_core", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hsm_core"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    _make_importable()
    role = sys.argv[1]
    importlib.import_module(f"hsm_core.remote.{role}").main(sys.argv[2:])
