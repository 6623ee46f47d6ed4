"""The wheel holds what a user needs, and nothing else."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hsm_core

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hsm_core", "hydra_plugins")
DIST_INFO = f"hydra_hsm-{hsm_core.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: a build in the checkout could take up what an earlier one left there."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{DIST_INFO}/METADATA").decode())


@pytest.fixture(scope="module")
def entry_points(wheel: zipfile.ZipFile) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(wheel.read(f"{DIST_INFO}/entry_points.txt").decode())
    return parser


def requirements(metadata: Message) -> dict[str, Requirement]:
    """What every installation needs, without the extras."""
    parsed = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return {r.name: r for r in parsed if r.marker is None}


def test_all_files_of_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if not name.startswith(DIST_INFO)}
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    assert packed == {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert "hsm_core/py.typed" in packed


def test_hydra_plugins_is_a_namespace_package(wheel: zipfile.ZipFile) -> None:
    assert "hydra_plugins/__init__.py" not in wheel.namelist()
    assert "hydra_plugins/hydra_hsm/__init__.py" in wheel.namelist()


def test_version_is_that_of_the_package(metadata: Message) -> None:
    assert metadata["Name"] == "hydra-hsm"
    assert metadata["Version"] == hsm_core.__version__


def test_license_and_readme_are_in_it(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert wheel.read(f"{DIST_INFO}/licenses/LICENSE").decode() == (ROOT / "LICENSE").read_text("utf-8")
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")


def test_both_lines_of_hydra_are_allowed_and_no_pre_release_is_asked_for(metadata: Message) -> None:
    hydra = requirements(metadata)["hydra-core"].specifier
    assert not hydra.prereleases
    assert hydra.contains("1.3.0")
    assert hydra.contains("1.4.0rc3", prereleases=True)
    assert not hydra.contains("1.2.0")


def test_every_import_is_of_a_package_that_is_required(metadata: Message) -> None:
    """Only the suite for sources, hsm_core.testing and its parts, may need more: it runs under pytest."""
    files = [file for name in requirements(metadata) for file in distribution(name).files or ()]
    provided = {file.parts[0].removesuffix(".py") for file in files}
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "testing.py" and path.parent.name != "conformance"
        for module in imported(path) - sys.stdlib_module_names - {*PACKAGES} - provided
    }
    assert missing == set()


def imported(path: Path) -> set[str]:
    """First parts of the names of all modules the file imports, at its top or later."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.level == 0]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("console_scripts", "hsm"),
        ("console_scripts", "hsm-monitor"),
        ("submitit", "executor"),
        ("submitit", "job_environment"),
    ],
)
def test_entry_point_leads_to_something(entry_points: configparser.ConfigParser, group: str, name: str) -> None:
    target = EntryPoint(name, entry_points[group][name], group).load()
    assert callable(target)
