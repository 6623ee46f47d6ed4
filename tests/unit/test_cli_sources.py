"""`hsm sources` without any other machine: what is decided and printed."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from hsm_core.cli import hsm
from hsm_core.cli.sources import _step_lines, _wrapped
from hsm_core.config import SourceConfig
from hsm_core.sources import examine
from hsm_core.sources.ping import load_per_core
from hsm_core.sources.steps import Status, Step, Walk, at_once, bare

if TYPE_CHECKING:
    from tests.conftest import FakeGpus


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(folder: Path, **sources: dict[str, Any]) -> None:
    (folder / "hsm_config.yaml").write_text(json.dumps({"compute_sources": sources}, indent=1))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(hsm, ["sources", *arguments])


# --- test


def test_this_machine_without_any_configuration(here: Path) -> None:
    result = run("test", "local")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    steps = ["python", "hydra", "disk", "gpus", "agent", "round trip"]
    assert [line[:29].split() for line in lines[:-1]] == [["local", *step.split(), "ok"] for step in steps]
    assert lines[-1].startswith("local  can be used (")
    assert list(here.iterdir()) == [], "nothing is left behind"


def test_json_and_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    configure(here, one={"type": "local"}, two={"type": "local", "python": "/no/python"}, far={"type": "hpc"})
    result = run("test", "--all", "--json")
    assert result.exit_code == 1
    one, two, far = json.loads(result.stdout)
    assert (one["source"], one["type"], one["ok"]) == ("one", "local", True)
    assert {step["status"] for step in one["steps"]} == {"good"}
    assert [step["status"] for step in two["steps"]] == ["failed"] + 5 * ["not reached"]
    assert two["steps"][0]["told"] == "the interpreter /no/python can't be found or run"
    assert (far["ok"], far["steps"][0]["status"]) == (False, "failed")
    assert far["steps"][0]["told"].startswith("there is neither sbatch nor qsub on PATH; ")
    assert run("test", "--all", "--quiet").stdout == "one\n"
    text = run("test", "two").stdout.splitlines()
    assert text[-1] == "two  can't be used: python failed, so 5 steps behind it could not be reached"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"conda_env": "lab"}, "conda_env does not work on a local source"),
        ({"python": "{folder}/none"}, "is no Python that can be run"),
        ({"python": "{folder}/old"}, "is Python 3.8.1; hsm needs 3.10 or newer"),
    ],
)
def test_a_python_that_can_not_be_used(here: Path, config: dict[str, str], words: str) -> None:
    for name, text in (("none", "echo hello"), ("old", """echo '{"python": "3.8.1", "executable": "old"}'""")):
        (here / name).write_text(f"#!/bin/sh\n{text}\n")
        (here / name).chmod(0o755)
    configure(here, mine={"type": "local", **{key: value.format(folder=here) for key, value in config.items()}})
    result = run("test", "mine")
    assert result.exit_code == 1
    assert words in result.stdout.splitlines()[0]


def test_an_environment_without_hydra(here: Path) -> None:
    (here / "bare").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (here / "bare").chmod(0o755)
    configure(here, mine={"type": "local", "python": str(here / "bare")})
    result = run("test", "mine")
    assert result.exit_code == 1
    assert "mine  hydra       FAILED    it is not installed there: pip install hydra-core==" in result.stdout


def test_gpus_of_this_machine(here: Path, fake_gpus: FakeGpus) -> None:
    configure(here, some={"type": "local"}, many={"type": "local", "gpus": 9})
    result = run("test", "--all")
    assert result.exit_code == 1
    assert "some  gpus        ok        4 x NVIDIA A100-SXM4-40GB; leases in /" in result.stdout
    assert "many  gpus        FAILED    gpus: 9 are wanted, but there are 0 (NVIDIA A100" in result.stdout
    assert not fake_gpus.lock_file(0).exists()


def test_a_type_that_somebody_else_brings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("cloud", "tests.unit.fake_source:FakeSource", "hsm.sources")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == "hsm.sources" else [])
    configure(here, sky={"type": "cloud"})
    result = run("test", "sky")
    assert result.exit_code == 0
    assert "sky  type        untested  sources of type cloud can't be tested by this version of hsm" in result.stdout
    assert result.stdout.endswith("sky  was not tested\n")
    assert run("test", "sky", "--quiet").stdout == ""
    assert "untested         sources of type cloud can't be pinged" in run("ping", "sky").stdout


@pytest.mark.parametrize("arguments", [["test"], ["test", "local", "--all"], ["ping"], ["test", "lokal"], ["validate"]])
def test_what_can_not_be_meant(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_configuration_elsewhere(here: Path) -> None:
    (here / "other").mkdir()
    configure(here / "other", there={"type": "local"})
    for command in ("test", "ping", "validate"):
        assert run(command, "there", "--config", "other/hsm_config.yaml", "--quiet").stdout == "there\n"
    assert run("test", "there").exit_code == 2


# --- ping and validate


def test_ping_of_this_machine() -> None:
    (told,) = json.loads(run("ping", "local", "--count", "3", "--json").stdout)
    assert (told["source"], told["reachable"], told["connect"]) == ("local", True, None)
    assert len(told["round_trips"]) == 3
    assert told["load"] is not None
    assert run("ping", "--all").stdout.startswith("local                   round trip 0.")
    assert run("ping", "--all", "-q").stdout == "local\n"


@pytest.mark.parametrize(
    ("load", "cores", "found"),
    [
        ("0.50 0.18 0.12 1/80 11206\n", "2\n", 0.25),
        (" 14:02  up 11 days,  3 users, load averages: 3.00 1.92 1.80\n", "4\n", 0.75),
        ("14:02:10 up 2.5 days, load average: 1,50, 0,10, 0,00\n", "1\n", 1.5),
        ("\n", "4\n", None),
        ("0.50 0.18 0.12\n", "\n", None),
        ("0.50\n", "0\n", None),
    ],
)
def test_load(load: str, cores: str, found: float | None) -> None:
    assert load_per_core(load, cores) == found


def test_validate_of_a_local_source(here: Path) -> None:
    configure(
        here, mine={"type": "local", "max_parallel_tasks": 3, "env": {"pass": ["NOT_SET"], "set": {"TOKEN": "x1y2"}}}
    )
    assert "NOT_SET" not in os.environ
    result = run("validate", "mine", "--verbose")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "mine (local)",
        f"  python              {sys.executable}  [default]",
        "  max_parallel_tasks  3  [hsm_config.yaml:5]",
        "  env.pass            NOT_SET  [hsm_config.yaml:6]",
        "                      PROBLEM: NOT_SET is not set here, so tasks won't have it: export NOT_SET=...",
        "  env.set             TOKEN  [hsm_config.yaml:6]",
    ]
    assert "x1y2" not in run("validate", "mine", "--json").stdout
    assert "[" not in run("validate", "mine").stdout


# --- deciding


def test_a_hydra_of_another_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.3.8")
    assert examine.hydra_found({"version": "1.3.2"}) == (Status.GOOD, "1.3.2")
    status, words = examine.hydra_found({"version": "1.4.0rc3"})
    assert status is Status.WARNING
    assert words.startswith("1.4.0rc3; here it is 1.3.8")
    broken = {"version": None, "missing": False, "reason": "ImportError: no omegaconf"}
    assert examine.hydra_found(broken) == (Status.FAILED, "it can't be imported there: ImportError: no omegaconf")


def test_a_disk_with_little_room() -> None:
    assert examine.disk_found({"free": 5000.0, "percent": 20.0}) == (Status.GOOD, "4.9 GiB free (20 %)")
    assert examine.disk_found({"free": 100.0, "percent": 1.0})[0] is Status.WARNING
    assert examine.disk_found({"free": None, "percent": None})[0] is Status.WARNING


def test_gpus_that_can_not_be_told_matter_where_they_are_wanted() -> None:
    facts: dict[str, Any] = {"models": [], "leases": None, "reason": "no driver"}
    assert examine.gpus_found(facts, SourceConfig("ssh"))[0] is Status.WARNING
    assert examine.gpus_found(facts, SourceConfig("ssh", gpus="auto"))[0] is Status.FAILED


def test_steps_that_were_done_are_not_told_again() -> None:
    steps: list[Step] = []
    walk = Walk(["a", "b", "c", "d"], steps.append)
    for name in ("a", "b", "a"):
        walk.reach(name, "fine")
    walk.fail("no c")
    assert [(step.name, step.status) for step in steps] == [
        ("a", Status.GOOD),
        ("b", Status.GOOD),
        ("c", Status.FAILED),
        ("d", Status.NOT_REACHED),
    ]


def test_an_error_of_the_work_is_raised() -> None:
    from hsm_core.selection import Selected

    def work(one: Selected, tell: object) -> None:
        raise KeyError(one.name)

    with pytest.raises(KeyError, match="local"):
        list(at_once(work, [Selected("local", SourceConfig("local"), None, None)]))


def test_how_a_step_is_told() -> None:
    failed = Step("host key", Status.FAILED, "not known:\n    ssh-keyscan x\nor so", 12.34)
    assert _step_lines("far", failed) == [
        "far  host key    FAILED    not known:",
        "                               ssh-keyscan x",
        "                           or so  (12.3 s)",
    ]
    assert _step_lines("far", Step("agent", Status.NOT_REACHED)) == []


def test_prose_is_wrapped_and_commands_are_not() -> None:
    assert _wrapped("one two three four five six", 20) == ["one two three four", "five six"]
    command = "    ssh-keyscan -p 2222 somewhere >> ~/.ssh/known_hosts"
    assert _wrapped(command, 20) == [command]


def test_an_error_without_the_source_it_is_about() -> None:
    assert bare("far (me@host:22): no answer", "far") == "no answer"
    assert bare("far: no answer", "far") == "no answer"
    assert bare("far, jump host (me@host:22): no answer", "far") == "far, jump host (me@host:22): no answer"
