"""What a sweep would do: its command line is run with `dry_run`, and the plan it writes is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsm_core.exceptions import HsmError

PLAN_FILE = "HSM_PLAN_FILE"
"""Environment variable that names the file which the launcher writes its plan to, as JSON."""


def read_plan(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a sweep's command line with `hydra.launcher.dry_run=true` and return the plan.

    Keys: tasks, sources, sweep_dir, errors. Raises HsmError when the app ends without a plan; what it
    wrote has gone to stderr then.
    """
    with tempfile.TemporaryDirectory(prefix="hsm-plan-") as folder:
        path = Path(folder) / "plan.json"
        ended = subprocess.run(
            [*arguments, "hydra.launcher.dry_run=true"],
            env={**os.environ, PLAN_FILE: str(path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            sys.stderr.write(ended.stdout.decode(errors="backslashreplace").rstrip("\n") + "\n")
            raise HsmError(f"The app ended with exit code {ended.returncode} before it planned the sweep.") from None
    if not isinstance(plan, dict):
        raise HsmError("The launcher wrote a plan that is no JSON object.")
    return plan
