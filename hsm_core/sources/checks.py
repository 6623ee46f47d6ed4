"""`hsm sources test`: whether a sweep could run on a source, as far as that shows without one."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import hsm_core.remote
from hsm_core.config import SourceConfig
from hsm_core.exceptions import SelectionError, SourceError
from hsm_core.remote import boot, process
from hsm_core.remote.lines import LINE_LIMIT
from hsm_core.selection import Selected
from hsm_core.sources import class_of, examine, local
from hsm_core.sources.steps import Status, Step, Walk, bare

PATIENCE = 60.0
"""seconds a program of ours has here"""
_WHO = (
    "import json, sys; print(json.dumps({'python': '%d.%d.%d' % sys.version_info[:3], 'executable': sys.executable}))"
)
"""for any Python, so that one that is too old can be told so"""


def check(selected: Selected, tell: Callable[[Step], None]) -> None:
    """Go through all that the source needs, until something fails; each step is told once it is done."""
    kind = selected.config.type
    if kind == "local":
        _check_local(selected.name, selected.config, tell)
    elif kind == "ssh":
        from hsm_core.sources.ssh import checks

        checks.check(selected.name, selected.config, tell)
    elif kind == "hpc":
        from hsm_core.sources.hpc.checks import check as check_cluster

        check_cluster(selected.name, selected.config, tell)
    else:
        tell(_other(selected))


def _other(selected: Selected) -> Step:
    """All that can be said of a source of another type."""
    try:
        class_of(selected)
    except SelectionError as e:
        return Step("type", Status.FAILED, bare(str(e), selected.name))
    words = f"sources of type {selected.config.type} can't be tested by this version of hsm"
    return Step("type", Status.UNTESTED, words)


def _check_local(name: str, config: SourceConfig, tell: Callable[[Step], None]) -> None:
    steps = {
        "hydra": examine.hydra_found,
        "disk": examine.disk_found,
        "gpus": lambda facts: examine.gpus_found(facts, config),
    }
    walk = Walk(["python", *steps, examine.AGENT, examine.ROUND_TRIP], tell)
    try:
        python = local.interpreter(name, config)
        walk.reach("python", _python(python))
        token = f"hsm-{secrets.token_hex(8)}"
        with _Child(python, config, token) as child:
            examine.examine(walk, child, lambda: child.hear(token), steps, config, folder=".")
    except SourceError as e:
        walk.fail(bare(str(e), name))


def _python(program: str) -> str:
    """Which Python that is. Raises SourceError where it is none that can be used."""
    try:
        done = subprocess.run([program, "-c", _WHO], capture_output=True, check=False, timeout=PATIENCE)
        facts = json.loads(done.stdout)
        version = tuple(map(int, facts["python"].split(".")))
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError, LookupError, AttributeError) as e:
        raise SourceError(f"{program} is no Python that can be run ({e}): name another one with `python`") from e
    if version < boot.OLDEST:
        raise SourceError(f"{program} is Python {facts['python']}; hsm needs 3.10 or newer: name another with `python`")
    return examine.python_found(facts)


class _Child:
    """The checker, here. Nothing of it is left after a `with`."""

    def __init__(self, python: str, config: SourceConfig, token: str) -> None:
        program = Path(hsm_core.remote.__file__).with_name("__main__.py")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._child = subprocess.Popen(
            [python, *process.interpreter_flags(), str(program), "checker", token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=local.inherited(config),
            start_new_session=True,
        )
        self._late = threading.Timer(PATIENCE, self._child.kill)
        self._late.daemon = True

    @property
    def stdin(self) -> IO[bytes]:
        assert self._child.stdin is not None
        return self._child.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._child.stdout is not None
        return self._child.stdout

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def hear(self, token: str) -> Mapping[str, Any]:
        """The next fact. Raises SourceError where none comes."""
        mark = token.encode() + b" "
        while text := self.stdout.readline(LINE_LIMIT):
            if text.startswith(mark):
                facts: Mapping[str, Any] = json.loads(text[len(mark) :])
                return facts
        raise SourceError(f"our program ended before it said anything. It said:\n{self.errors()[-2000:]}")

    def __enter__(self) -> _Child:
        self._late.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """The end of its input is the agent's end, with all that it started."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self._child.wait()
        self._late.cancel()
        self.stdout.close()
        self._errors.close()
