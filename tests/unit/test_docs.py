"""What the documents name is there."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import rich_click as click
import yaml

from hsm_core.cli import hsm
from hsm_core.config import HsmConfig

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = {".hsm", ".hydra", "errors", "failed_tasks", "hydra", "logs", "reports", "sweeps", "tasks"}
"""First parts of paths that are not the repository's: those of a sweep directory, and Hydra's config groups."""


def named_paths(text: str) -> list[str]:
    """What stands in backticks and looks like a path of the repository: by its ending, or by a slash."""
    words = re.findall(r"`([\w.-]+(?:/[\w.-]*)*)`", text)
    paths = [w for w in words if "/" in w or w.endswith((".py", ".md", ".toml"))]
    return [p for p in paths if p.split("/")[0] not in ELSEWHERE]


def test_every_path_in_architecture_exists() -> None:
    paths = named_paths((ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    assert len(paths) >= 10, "the pattern should find the paths of the page"
    missing = [p for p in paths if not (ROOT / p).exists() and not (ROOT / "hsm_core" / p).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("in `hsm_core/engine.py` and `tests/`", ["hsm_core/engine.py", "tests/"]),
        ("`setup.py`, `.ci/run`, `README.md`", ["setup.py", ".ci/run", "README.md"]),
        ("`.hsm/journal.jsonl` and `reports/results.csv` of a sweep", []),
        ("`apply(state, event)` and `hydra/launcher=hsm` and `hydra/launcher` and `engine`", []),
    ],
)
def test_what_counts_as_a_path(text: str, paths: list[str]) -> None:
    assert named_paths(text) == paths


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"(?:^    |`)make ([a-z]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert targets >= {"demo", "test"}
    for target in sorted(targets):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", ["README.md", "example_app/README.md"])
def test_commands_of_the_readmes_parse(document: str) -> None:
    lines = re.findall(r"^    hsm (.*?)(?:\s+#.*)?$", (ROOT / document).read_text("utf-8"), re.MULTILINE)
    assert lines
    for line in lines:
        arguments = shlex.split(line)
        command: click.Command | None = hsm
        while isinstance(command, click.Group):
            command = command.commands.get(arguments.pop(0))
        assert command is not None, f"there is no command 'hsm {line}'"
        command.make_context("hsm", arguments)


@pytest.mark.parametrize("document", ["README.md", "example_app/README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / document).read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []


def test_settings_of_the_readme_are_those_of_the_schema() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.split("| setting | default | meaning |\n", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", table, re.MULTILINE)
    assert named
    defaults = {f.name: f.default for f in dataclasses.fields(HsmConfig)}
    for name, shown in named:
        assert name in defaults, f"hydra.launcher has no setting '{name}'"
        if defaults[name] is not None:
            assert yaml.safe_load(shown) == defaults[name]
