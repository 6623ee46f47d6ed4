"""Files and command lines that are wrong: told whole and with their places before anything runs; nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsm_core.config.file import SIZE_LIMIT
from tests.faults.conftest import APP

SWEEP = "app: app.py\nsweep: {grid: {+x: [1, 2]}}\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))

HSM_CONFIG: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("compute: {retry_attempts: 1", "hsm_config.yaml:1: not valid YAML"),
    "tab": ("compute:\n\tretry_attempts: 1\n", "hsm_config.yaml:2: not valid YAML"),
    "no mapping": ("[1, 2]\n", "hsm_config.yaml:1: must be a mapping"),
    "unknown source": ("sources: servr1\ncompute_sources: {server1: {type: local}}\n", "server1"),
    "no variable": ("worker: ${oc.env:NO_SUCH_VARIABLE}\n", "NO_SUCH_VARIABLE"),
    "python": ("worker: !!python/object/apply:os.system [touch marker]\n", "unknown YAML tag"),
    "no text": (b"worker: \xff\xfe\n", "hsm_config.yaml:1: not readable as text"),
    "half": (
        'compute_sources: {a: {type: local, python: "\\ud83e"}}\n',
        ":1: compute_sources.a.python: holds half a character",
    ),
    "laughs": (BOMB, "stands for more than 100000 values"),
    "merged": (MERGED, "stands for more than 100000 values"),
    "deep": ("a: " + "[" * 10_000, "nested too deep"),
    "huge": (b"#" * (SIZE_LIMIT + 1), "larger than 4 MiB; is it the right file?"),
}

ALL_WRONG = """\
sources: ''
worker: frok
worker: fork
compute:
  retry_attempts: many
  retry_delay: -1
  timeout: 3
computer: {}
compute_sources:
  a: {}
  b: {type: locl}
  ../x: {type: local}
  d: {type: ssh, host: -oProxyCommand=x}
  e: {type: distributed, sources: [other]}
"""
TOLD = (
    "1: sources: must not be empty",
    "3: worker: stands here twice; the first is in line 2",
    "5: compute.retry_attempts: must be a whole number, not the text 'many'",
    "6: compute.retry_delay: must be 0 or more, not -1",
    "7: compute.timeout: unknown key here; it belongs to the top level",
    "8: computer: unknown key; did you mean compute?",
    "10: compute_sources.a: has no type; add one of local, ssh",
    "11: compute_sources.b.type: the text 'locl' is no type of source; did you mean local?",
    "12: compute_sources.../x: is no name for a source",
    "13: compute_sources.d.host: the text '-oProxyCommand=x' is no host name, address or ssh alias",
    "14: compute_sources.e.sources: there is no source 'other'",
)

SWEEP_FILE: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("app: [", "sweep.yaml:1: not valid YAML"),
    "no app": ("sweep: {grid: {x: [1]}}\n", "sweep.yaml:1: app: is missing"),
    "other app": ("app: ap.py\n", "did you mean app.py?"),
    "unknown": (SWEEP + "overides: []\n", "sweep.yaml:3: overides: unknown key; did you mean overrides?"),
    "settings": (SWEEP + "hsm: {wroker: fork}\n", "sweep.yaml:3: hsm.wroker: unknown key; did you mean worker?"),
    "half": ('app: app.py\nsweep: {grid: {+x: ["\\ud83e"]}}\n', "sweep.yaml:2: holds half a character"),
    "laughs": (BOMB, "stands for more than 100000 values"),
    "deep": ("a: " + "[" * 10_000, "nested too deep"),
    "no text": (b"app: \xff\n", "it is no UTF-8 text"),
    "huge": (b"#" * (SIZE_LIMIT + 1), "larger than 4 MiB; is it the right file?"),
}


class Project:
    """A folder with an app and what a test puts beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.put("app.py", APP)
        self.put("sweep.yaml", SWEEP)

    def put(self, name: str, content: str | bytes) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def refused(self, *command: str, code: int = 2) -> str:
        """What is said to a command that must end with this exit code and leave the folder as it is."""
        before = sorted(self.folder.rglob("*"))
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        assert done.returncode == code, said
        assert "Traceback" not in said
        assert sorted(p for p in self.folder.rglob("*") if "__pycache__" not in p.parts) == before
        assert not Path(os.environ["XDG_STATE_HOME"]).exists()
        return said


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("case", HSM_CONFIG)
def test_a_bad_configuration_file(project: Project, case: str) -> None:
    content, words = HSM_CONFIG[case]
    project.put("hsm_config.yaml", content)
    assert words in project.refused("-m", "hsm_core", "run")


@pytest.mark.parametrize("case", SWEEP_FILE)
def test_a_bad_sweep_file(project: Project, case: str) -> None:
    content, words = SWEEP_FILE[case]
    project.put("sweep.yaml", content)
    assert words in project.refused("-m", "hsm_core", "run")


def test_a_folder_or_a_broken_link_in_place_of_a_file(project: Project) -> None:
    path = project.folder / "hsm_config.yaml"
    path.mkdir()
    assert "hsm_config.yaml: can't be read as the configuration file: Is a directory" in project.refused(
        "-m", "hsm_core", "run"
    )
    path.rmdir()
    path.symlink_to("nowhere")
    assert "hsm_config.yaml: can't be read as the configuration file: No such file" in project.refused(
        "-m", "hsm_core", "run"
    )
    path.unlink()
    assert "is a directory" in project.refused("-m", "hsm_core", "run", "--config", ".")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources", "clowd"], "clowd"),
        (["--strategy", "round_robbin"], "did you mean round_robin?"),
        (["hydra.launcher.wroker=fork"], "hydra.launcher.wroker: unknown key; did you mean worker?"),
        (["--max-runs", "0"], "--max-runs"),
        (["--no-such-option"], "--no-such-option"),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir is set by hsm run"),
    ],
)
def test_a_bad_command_line(project: Project, options: list[str], words: str) -> None:
    assert words in project.refused("-m", "hsm_core", "run", *options)


def test_all_that_is_wrong_is_told_at_once(project: Project) -> None:
    project.put("hsm_config.yaml", ALL_WRONG)
    wrong = ["hydra.launcher.timeout=soon", "hydra.launcher.grace=-1"]
    for command, code in ((["-m", "hsm_core", "run"], 2), (["app.py", "-m", "hydra/launcher=hsm", "+x=1,2"], 1)):
        said = project.refused(*command, *wrong, code=code)
        assert f"{len(TOLD) + len(wrong)} problems in the configuration of hsm:" in said
        assert "hydra.launcher.timeout: must be a number, not the text 'soon'" in said
        assert "hydra.launcher.grace: must be 0 or more, not -1" in said
        for words in TOLD:
            assert f"hsm_config.yaml:{words}" in said
