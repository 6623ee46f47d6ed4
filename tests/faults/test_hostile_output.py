"""Nothing that a task says acts on a terminal, wherever and by whatever command it is shown."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Sweep

APP = r"""
import os, sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

EVIL = "\x1b]0;EVIL\x07\x1b[66;6mEVIL\x9b66;6m\x1bP\x00\x08\u202eEVIL\r\x1bc"

Hostile = type("Hostile\x1b]0;EVIL\x07", (Exception,), {"__module__": "app\x1b]0;EVIL\x07"})


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    for fd in (1, 2):
        os.write(fd, EVIL.encode() + bytes(range(256)) + os.urandom(1000) + b"\n" + EVIL.encode("latin-1", "replace"))
    if cfg.do == "raise":
        error = ValueError(EVIL)
        if hasattr(error, "add_note"):
            error.add_note(EVIL)
        raise error from RuntimeError(EVIL)
    if cfg.do == "hostile":
        raise Hostile(EVIL)
    if cfg.do == "group":
        raise ExceptionGroup(EVIL, [ValueError(EVIL)])
    if cfg.do == "os":
        raise OSError(2, EVIL, EVIL)
    if cfg.do == "exit":
        sys.exit(EVIL)
    if cfg.do == "frame":
        exec(compile("def evil():\n    raise ValueError('no')\nevil()", EVIL.replace("\x00", ""), "exec"), {})
    (Path(HydraConfig.get().runtime.output_dir) / "result.txt").write_text("done")
    return {"list": [EVIL], EVIL: EVIL} if cfg.do == "nested" else EVIL


if __name__ == "__main__":
    main()
"""
EVIL_OVERRIDE = '+text="\x1b]0;EVIL\x07\x1b[66;6mEVIL\x9b66;6m\u202e"'
OURS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
"""colours and cursor movements, which only rich and we write"""
ACTING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")


def acting(shown: bytes) -> list[str]:
    """What a terminal would act upon, of what was not written by us to be acted upon."""
    assert b"\x1b[66;6m" not in shown
    assert b"\x9b66" not in shown.replace(b"\xc2\x9b", b"\x9b")
    return ACTING.findall(OURS.sub(b"", shown).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", ""))


def on_a_terminal(command: list[str], folder: Path) -> bytes:
    """What a command writes to its terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True):
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
    os.close(master)
    return shown


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


@pytest.fixture
def hostile(sweep: Sweep) -> Sweep:
    (sweep.folder / "app.py").write_text(APP)
    return sweep


DEEDS = ["return", "nested", "raise", "hostile", "os", "exit", "frame", *(["group"] * (sys.version_info >= (3, 11)))]


def command(sweep: Sweep, *overrides: str) -> list[str]:
    options = ["-m", "hydra/launcher=hsm", f"hydra.sweep.dir={sweep.directory}", "hydra.launcher.stream=true"]
    return [sys.executable, "app.py", *options, *overrides]


def test_nothing_acts_on_the_launchers_terminal_nor_on_any_other(hostile: Sweep) -> None:
    run = command(hostile, f"+do={','.join(DEEDS)}", EVIL_OVERRIDE, "hydra.launcher.raise_on_failure=false")
    shown = on_a_terminal(run, hostile.folder)
    assert shown.count(b"EVIL") > 20
    assert acting(shown) == []
    sweep = str(hostile.directory)
    for words in (
        ["monitor", "watch", sweep, "--once"],
        ["results", sweep],
        ["sweeps"],
        ["audit", sweep],
        ["attach", sweep],
    ):
        for options in ([], ["--json"], ["--quiet"]):
            shown = on_a_terminal([sys.executable, "-m", "hsm_core", *words, *options], hostile.folder)
            assert shown or "--quiet" in options
            assert acting(shown) == [], (words, options)
    texts = [*hostile.directory.glob("logs/**/*.log"), *hostile.directory.glob("errors/*.txt")]
    assert len(texts) > 8
    for path in [*texts, hostile.directory / "reports" / "performance_analysis.yaml"]:
        assert acting(path.read_bytes()) == [], path
    for line in (hostile.directory / ".hsm" / "journal.jsonl").read_bytes().splitlines():
        assert line.isascii()
        assert isinstance(json.loads(line), dict)
    hostile.audit()


@pytest.mark.parametrize("do", ["raise", "hostile", "frame"])
def test_nothing_acts_on_the_terminal_when_the_failure_is_raised(hostile: Sweep, do: str) -> None:
    shown = on_a_terminal(command(hostile, f"+do={do}", EVIL_OVERRIDE), hostile.folder)
    assert b"Error executing job" in shown
    assert acting(shown) == []


def test_nothing_acts_on_the_terminal_when_the_app_can_not_be_imported(hostile: Sweep) -> None:
    app = hostile.folder / "app.py"
    app.write_text(
        APP.replace("@hydra.main", "import os\nif 'HSM_MARK' in os.environ: raise ValueError(EVIL)\n\n@hydra.main")
    )
    shown = on_a_terminal(command(hostile, "+do=return"), hostile.folder)
    assert b"no source can run the remaining tasks" in shown
    assert acting(shown) == []
