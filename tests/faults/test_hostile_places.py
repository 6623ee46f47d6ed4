"""Names that a shell would take for commands: of folders, programs, variables and values; each is only a name."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from hsm_core.override_text import literal, quote
from tests.faults.conftest import Sweep

APP = """
import hashlib, os, sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    Path(HydraConfig.get().runtime.output_dir, "result.txt").write_text("done")
    set_for_it = os.environ.get("OF_CONFIG", "")
    return [hashlib.sha256(text.encode()).hexdigest() for text in (cfg.text, set_for_it)] + [os.getcwd()]


if __name__ == "__main__":
    main()
"""

NAMES = {
    "spaces": "with  two spaces ",
    "semicolon": "; touch marker",
    "quotes": "'; touch marker; echo \"",
    "command": "$(touch marker)`touch marker`",
    "backslash": "back\\slash\\",
    "newline": "new\nline",
    "dash": "-rf --help",
    "unicode": "ünïcödé 日本 🦆",
    # Not ${HOME}: Hydra itself takes that for an interpolation, in the name of a folder too.
    "variable": "$HOME %s {x}",
    "glob": "*?[a-z]~!#&|<>(){}=,:@^",
    "dots": "... ..",
}


@pytest.mark.parametrize("case", NAMES)
def test_a_sweep_in_a_folder_of_any_name(tmp_path: Path, case: str) -> None:
    name = NAMES[case]
    folder = tmp_path / name
    folder.mkdir()
    sweep = Sweep(folder)
    sweep.directory = folder / f"out {name}"
    (folder / "app.py").write_text(APP)
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("text: ''\n")
    interpreter = folder / f"python {name}"
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    settings = f"type: local, python: {_yaml(interpreter)}, env: {{set: {{OF_CONFIG: {_yaml(name)}}}}}"
    (folder / "hsm_config.yaml").write_text(f"compute_sources: {{local: {{{settings}}}}}\n")
    to = f"hydra.sweep.dir={quote(literal(str(sweep.directory)))}"
    command = [sys.executable, "app.py", "-m", "hydra/launcher=hsm", to]
    assert sweep._start([*command, f"text={quote(literal(name))},b"]).wait(60) == 0, sweep.said()
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (name, "b")]
    returned = [task.outcome.return_value for task in sweep.state().tasks.values() if task.outcome is not None]
    assert returned == [[digests[0], digests[0], str(folder)], [digests[1], digests[0], str(folder)]]
    assert sweep.complete("--retry-failed").wait(60) == 0, sweep.said()
    assert not list(tmp_path.rglob("marker"))
    assert not Path("marker").exists()
    sweep.audit()


def _yaml(text: object) -> str:
    """A text as YAML, which JSON is."""
    return json.dumps(str(text), ensure_ascii=False)
