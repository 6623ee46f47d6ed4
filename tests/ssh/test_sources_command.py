"""`hsm sources` with hosts: several at a time, pings, and what is said of a configuration without going there."""

from __future__ import annotations

import dataclasses
import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hsm_core.cli import hsm
from hsm_core.config import SourceConfig
from hsm_core.testing import wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import ClientKey, SshHome, SshHost


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh_home: SshHome) -> Path:
    """The current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def configure(folder: Path, **sources: SourceConfig) -> None:
    default = SourceConfig("ssh")
    lines = ["compute_sources:"]
    for name, config in sources.items():
        lines.append(f"  {name}:")
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if field.name == "type" or value != getattr(default, field.name):
                lines.append(f"    {field.name}: {json.dumps(value)}")
    (folder / "hsm_config.yaml").write_text("\n".join(lines) + "\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(hsm, ["sources", *arguments])


def validated(*arguments: str) -> tuple[bool, dict[str, Any]]:
    """Whether the one source is valid, and its settings by name."""
    result = run("validate", *arguments, "--json")
    (told,) = json.loads(result.stdout)
    assert result.exit_code == (0 if told["valid"] else 1)
    return told["valid"], {setting["name"]: setting for setting in told["settings"]}


# --- test and ping


def test_a_good_host_and_a_bad_one(here: Path, ssh_host: SshHost, make_host: MakeHost, far_python: Path) -> None:
    configure(here, good=ssh_host.config(python=str(far_python)), bad=make_host().config())
    result = run("test", "--all", "--json")
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert (good["source"], good["type"], good["ok"]) == ("good", "ssh", True)
    assert {step["status"] for step in good["steps"]} == {"good"}
    assert all(step["seconds"] >= 0 for step in good["steps"])
    by_name = {step["name"]: step["status"] for step in bad["steps"]}
    assert (bad["ok"], by_name["connect"], by_name["host key"], by_name["agent"]) == (
        False,
        "good",
        "failed",
        "not reached",
    )
    assert run("test", "--all", "--quiet").stdout == "good\n"
    lines = run("test", "ssh:good", "bad").stdout.splitlines()
    assert "good  round trip  ok " in "\n".join(lines)
    assert lines[-2].startswith("good  can be used (")
    assert lines[-1].startswith("bad   can't be used: host key failed, so 10 steps behind it could not be reached")
    assert all(line[:6] in ("good  ", "bad   ", "      ") for line in lines)


def test_ping(here: Path, ssh_host: SshHost, make_host: MakeHost) -> None:
    configure(here, good=ssh_host.config(python="/no/python"), bad=make_host().config())
    result = run("ping", "--all", "--count", "7", "--json")
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert good["reachable"]
    assert good["address"] == f"{ssh_host.user}@{ssh_host.address}:{ssh_host.port}"
    assert good["connect"] > 0
    assert len(good["round_trips"]) == 7
    assert good["load"] >= 0
    assert not bad["reachable"]
    assert bad["problem"].startswith("its host key is not known: ")
    wait_until(lambda: ssh_host.programs("") == [], "all programs on the host to end")
    assert not (ssh_host.home / ".hsm").exists()
    assert ssh_host.logins() == 1
    text = {line.split()[0]: line for line in run("ping", "--all").stdout.splitlines()}
    assert text["good"].startswith("good  connect ")
    assert text["bad"].endswith("; hsm sources test says what to do")
    assert run("ping", "bad", "good", "-q").stdout == "good\n"


# --- validate


def test_what_is_used_and_where_that_is_said(
    here: Path, make_host: MakeHost, ssh_home: SshHome, tmp_path: Path
) -> None:
    host, jump = make_host(), make_host()
    ssh_home.trust(jump, host)
    via = f"{jump.user}@{jump.address}:{jump.port}"
    ssh_home.config.write_text(
        f"Host box\n  HostName {host.address}\n  ProxyJump {via}\n  IdentityFile {host.key.path}\n  Port {host.port}\n"
    )
    (here / "hsm_config.yaml").write_text(
        "compute_sources:\n  box:\n    type: ssh\n    user: me\n    project_dir: ~/code\n    conda_env: lab\n"
    )
    valid, told = validated("box")
    assert valid
    assert host.logins() == jump.logins() == 0
    assert (told["host"]["value"], told["host"]["origin"]) == (
        f"{host.address} (box)",
        "the source's name, ~/.ssh/config",
    )
    assert (told["user"]["value"], told["user"]["origin"]) == ("me", "hsm_config.yaml:4")
    assert (told["port"]["value"], told["port"]["origin"]) == (str(host.port), "~/.ssh/config")
    assert (told["jump host"]["value"], told["jump host"]["origin"]) == (via, "~/.ssh/config")
    assert told["key"]["value"] == f"{host.key.path}: mode 600, no passphrase"
    assert told["key"]["origin"] == "~/.ssh/config"
    assert told["host key"]["value"] == f"{host.fingerprint()} (ssh-ed25519)"
    assert told["host key"]["origin"] == "~/.ssh/known_hosts:2"
    assert (told["project_dir"]["value"], told["project_dir"]["origin"]) == ("~/code", "hsm_config.yaml:5")
    assert (told["conda_env"]["value"], told["python"]["value"]) == ("lab", "python3")
    result = run("validate", "ssh:box", "--verbose")
    assert f"  host key     {jump.user}@{jump.address}:{jump.port}: {jump.fingerprint()} (ssh-ed25519)" in result.stdout
    assert "  user         me  [hsm_config.yaml:4]\n" in result.stdout
    assert "  user         me\n" in run("validate", "box").stdout


def test_a_host_whose_key_is_not_known(here: Path, make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    configure(here, server1=host.config(), server2=host.config(host_key_policy="accept_new"))
    valid, told = validated("server1")
    assert not valid
    assert told["host key"]["problem"].endswith(
        f"\n    ssh-keyscan -p {host.port} {host.address} >> ~/.ssh/known_hosts"
    )
    valid, told = validated("server2")
    assert valid
    assert told["host key"]["value"] == "not known: the first that comes is taken"
    assert run("validate", "ssh", "--quiet").stdout == "server2\n"


def test_keys(here: Path, ssh_host: SshHost, ssh_home: SshHome, tmp_path: Path) -> None:
    key = ClientKey(ssh_home.ssh, "locked", passphrase="secret")
    for path, value, problem in (
        (key.path, "~/.ssh/locked: mode 600, needs its passphrase: asked for on a terminal, else ssh-add", ""),
        (key.path.with_name("locked.pub"), "it holds no private key", "~/.ssh/locked.pub can't be used: it holds no"),
        (ssh_home.ssh / "none", "No such file or directory", "ssh_key ~/.ssh/none can't be used: No such file"),
    ):
        configure(here, server1=ssh_host.config(ssh_key=str(path)))
        valid, told = validated("server1")
        assert value in told["key"]["value"]
        assert told["key"]["problem"].startswith(problem)
        assert valid == (not problem)
        assert told["ssh agent"]["value"] == "none"
    key.path.chmod(0o644)
    configure(here, server1=ssh_host.config(ssh_key="~/.ssh/locked"))
    assert validated("server1")[1]["key"]["problem"] == "others may read ~/.ssh/locked: chmod 600 ~/.ssh/locked"


def test_nobody_to_log_in_with(here: Path, ssh_host: SshHost, ssh_home: SshHome) -> None:
    configure(here, server1=ssh_host.config(ssh_key=None, user=None))
    valid, told = validated("server1")
    assert not valid
    assert "there is none to log in with: make one with ssh-keygen" in told["keys"]["problem"]
    assert told["user"]["value"] == f"{getpass.getuser()} (your name here)"


def test_an_ssh_configuration_that_is_none(here: Path, ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text("Host *\n  ProxyJump a:b:c\n")
    configure(here, server1=ssh_host.config())
    valid, told = validated("server1")
    assert not valid
    assert "'a:b:c' in its ProxyJump is no host" in told["host"]["problem"]
