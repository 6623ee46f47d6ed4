"""Where the output of a launcher goes once its terminal is gone."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from hsm_core.launcher_log import log_path

LET_GO = """
import sys
from pathlib import Path
from hsm_core.launcher_log import let_go_of_terminal
print(let_go_of_terminal(Path(sys.argv[1])), let_go_of_terminal(Path(sys.argv[1])))
print("an error", file=sys.stderr)
print("read:", repr(sys.stdin.read()))
"""


def let_go(log: Path, **streams: Any) -> None:
    command = [sys.executable, "-c", LET_GO, str(log)]
    subprocess.run(command, check=True, **{"stdin": subprocess.DEVNULL, **streams})


def test_the_name_tells_the_launcher(tmp_path: Path) -> None:
    assert log_path(tmp_path, 12) == tmp_path / "launcher_0012.log"


def test_what_went_to_a_terminal_goes_to_the_log(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    log = tmp_path / "log"
    let_go(log, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.close(master)
    assert log.read_text().splitlines() == ["True False", "an error", "read: ''"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_what_went_to_a_file_goes_on_doing_so(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with open(out, "w") as file:
        let_go(log, stdout=file, stderr=file)
    assert "False False" in out.read_text()
    assert not log.exists()


def test_a_pipe_is_left_with_the_terminal(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with open(out, "w") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as reader:
        let_go(log, stdout=reader.stdin, stderr=file)
    assert "True False" in log.read_text()
    assert out.read_text() == "an error\n"


def test_a_log_that_cannot_be_written_loses_the_output_only(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    let_go(tmp_path / "nowhere" / "log", stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.close(master)
