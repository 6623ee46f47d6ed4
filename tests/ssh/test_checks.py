"""The way to an agent on a host, step by step: what is told where it is good, and of each step that can fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.ssh.checks import check
from hsm_core.sources.ssh.source import SshSource
from hsm_core.sources.steps import Status, Step
from hsm_core.testing import Bench, alive, wait_until
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import ClientKey, SshHome, SshHost, free_port

LISTING = "GPU 0: NVIDIA A100 (UUID: GPU-{user}-0)\\nGPU 1: NVIDIA A100 (UUID: GPU-{user}-1)\\n"


def look(config: SourceConfig) -> list[Step]:
    steps: list[Step] = []
    check("server1", config, steps.append)
    return steps


def failure(config: SourceConfig, name: str, good: Sequence[str]) -> str:
    """What is told of the one step that fails, behind these; none behind it is reached."""
    steps = look(config)
    assert [step.name for step in steps if step.status is Status.GOOD] == list(good)
    (failed,) = [step for step in steps if step.status is Status.FAILED]
    assert failed.name == name
    rest = steps[steps.index(failed) + 1 :]
    assert rest
    assert all(step.status is Status.NOT_REACHED and step.told == "" for step in rest)
    return failed.told


def told(config: SourceConfig, name: str) -> tuple[Status, str]:
    (step,) = [step for step in look(config) if step.name == name]
    return step.status, step.told


def put_program(host: SshHost, name: str, text: str) -> Path:
    """A shell script in the home of the host's user."""
    path = host.home / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    os.chown(path, host.uid, -1)
    return path


def is_quiet(host: SshHost) -> bool:
    """Whether nothing of the host's user runs any more."""
    return host.programs("") == []


LOGIN = ["resolve", "connect", "host key", "log in", "shell"]
ALL = [*LOGIN, "python", "folder", "disk", "hydra", "rsync", "gpus", "agent", "round trip"]


def test_all_is_good_and_nothing_stays_but_our_code(ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python))
    for _ in range(2):  # the agent's code is there already the second time
        steps = look(config)
        assert [(step.name, step.status) for step in steps] == [(name, Status.GOOD) for name in ALL]
    words = {step.name: step.told for step in steps}
    assert words["resolve"] == ssh_host.address
    assert words["connect"] == f"{ssh_host.address}:{ssh_host.port}"
    assert words["host key"] == f"{ssh_host.fingerprint()} (ssh-ed25519), ~/.ssh/known_hosts:1"
    assert words["log in"] == f"as {ssh_host.user} with {ssh_host.key.path}"
    assert words["shell"].startswith("/bin/bash on Linux")
    assert words["python"].endswith(f", {far_python}")
    assert words["folder"] == str(ssh_host.home / ".hsm")
    assert words["agent"].startswith("load ")
    assert [path.name for path in (ssh_host.home / ".hsm").iterdir()] == ["agent"]
    assert len(list((ssh_host.home / ".hsm" / "agent").iterdir())) == 1
    wait_until(lambda: is_quiet(ssh_host), "all programs on the host to end")
    assert ssh_host.logins() == 2


def test_beside_a_sweep(ssh_host: SshHost, far_python: Path, tmp_path: Path) -> None:
    config = ssh_host.config(python=str(far_python))
    source = SshSource("server1", config, 2)
    bench = Bench(source, tmp_path)
    bench.start()
    running = bench.attempt(0, "do=hang", "stubborn=false")
    source.submit([running])
    pid = bench.started(running).pid
    assert {step.status for step in look(config)} == {Status.GOOD}
    assert pid is not None
    assert alive(pid)
    assert bench.run(1, "do=return").outcome.completed
    health = source.health()
    assert health is not None
    assert health.disk_free is not None
    source.stop(5.0)


# --- the way there


@pytest.mark.usefixtures("ssh_home")
def test_a_name_that_nobody_knows() -> None:
    words = failure(SourceConfig(type="ssh", host="no-host.invalid"), "resolve", [])
    assert words.startswith("the name no-host.invalid is not known (")
    assert words.endswith("; is `host` right?")


def test_a_port_where_nobody_listens(ssh_host: SshHost) -> None:
    words = failure(ssh_host.config(port=free_port("127.0.0.1")), "connect", ["resolve"])
    assert words == "nothing listens there; is sshd running, is `port` right?"


def test_an_unknown_host_key(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    words = failure(host.config(), "host key", ["resolve", "connect"])
    assert words.startswith(
        f"its host key is not known: {host.fingerprint()} (ssh-ed25519). Ask those who run the host"
    )
    assert f"\n    ssh-keyscan -p {host.port} {host.address} >> ~/.ssh/known_hosts\n" in words
    assert not ssh_home.known_hosts.exists()


def test_a_host_key_that_changed(ssh_host: SshHost) -> None:
    ssh_host.new_host_key()
    assert failure(ssh_host.config(), "host key", ["resolve", "connect"]).startswith("its host key CHANGED: it is now ")


def test_a_key_that_is_not_let_in(ssh_host: SshHost, tmp_path: Path) -> None:
    stranger = ClientKey(tmp_path, "stranger")
    words = failure(ssh_host.config(ssh_key=str(stranger.path)), "log in", ["resolve", "connect", "host key"])
    assert words.startswith(f"it takes none of our keys: {stranger.path}. Add one of them there with ssh-copy-id")


def test_an_ssh_configuration_that_is_none(ssh_host: SshHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text("Host *\n  ProxyJump a:b:c\n")
    assert "in its ProxyJump is no host" in failure(ssh_host.config(), "resolve", [])


def test_jump_hosts(make_host: MakeHost, ssh_home: SshHome, far_python: Path) -> None:
    jump, target = make_host(), make_host()
    ssh_home.trust(jump, target)
    via = f"{jump.user}@{jump.address}:{jump.port}"
    ssh_home.config.write_text(
        f"Host {target.address}\n  ProxyJump {via}\nHost {jump.address}\n  IdentityFile {jump.key.path}\n"
    )
    config = target.config(python=str(far_python))
    steps = look(config)
    assert [step.name for step in steps] == ["resolve", "jump hosts", *ALL[1:]]
    assert {step.status for step in steps} == {Status.GOOD}
    assert (steps[0].told, steps[1].told) == (jump.address, via)
    jump.new_host_key()
    words = failure(config, "jump hosts", ["resolve"])
    assert words.startswith(f"server1, jump host ({via}): its host key CHANGED")


# --- what is there


def test_no_shell_to_be_had(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host(login_shell="/bin/false")
    ssh_home.trust(host)
    assert "a command did not begin" in failure(host.config(), "shell", LOGIN[:-1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"python": "/no/python"}, "there is no program /no/python: name the app's interpreter there with `python`"),
        (
            {"setup": ["true", "echo oh no >&2; false"]},
            "the command 'echo oh no >&2; false' of setup failed\nIt said:\noh no",
        ),
        ({"conda_env": "lab"}, "conda was not found, neither on PATH nor in "),
    ],
)
def test_no_python(ssh_host: SshHost, fields: dict[str, object], words: str) -> None:
    assert failure(ssh_host.config(**fields), "python", LOGIN).startswith(words)


@pytest.mark.parametrize(
    "says",
    ["""echo "$3 {\\"agent\\": 1, \\"base\\": []}\"""", """echo "$3 $(yes [ | head -n 100000 | tr -d '\\n')\""""],
)
def test_a_python_that_lies(ssh_host: SshHost, says: str) -> None:
    liar = put_program(ssh_host, "liar", says)
    assert "can't be understood" in failure(ssh_host.config(python=str(liar)), "python", LOGIN)


@pytest.mark.parametrize("before", [True, False])
def test_a_folder_that_can_not_be_written_to(ssh_host: SshHost, far_python: Path, before: bool) -> None:
    config = ssh_host.config(python=str(far_python))
    folder = ssh_host.home / ".hsm"
    if before:
        folder.mkdir()
    else:
        look(config)
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
    words = failure(config, "folder", [*LOGIN, "python"])
    assert words.startswith(f"{'the folder ' if before else ''}{folder} can't be written to: ")
    assert "Permission denied" in words


def test_no_hydra(ssh_host: SshHost, far_python: Path) -> None:
    bare = put_program(ssh_host, "bare", f'exec {far_python} -S "$@"')
    words = failure(ssh_host.config(python=str(bare)), "hydra", [*LOGIN, "python", "folder", "disk"])
    assert words.startswith("it is not installed there: pip install hydra-core==")


def test_a_project_that_can_not_be_read(ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python), project_dir="~/code")
    words = failure(config, "project", [*LOGIN, "python", "folder", "disk"])
    assert words == f"project_dir {ssh_host.home}/code can't be read there: No such file or directory"
    (ssh_host.home / "code").mkdir(mode=0o755)
    assert told(config, "project") == (Status.GOOD, f"{ssh_host.home}/code")


def test_no_rsync_there(ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python), setup=["PATH=/var/empty"])
    status, words = told(config, "rsync")
    assert (status, words) == (
        Status.WARNING,
        "rsync is not installed there; files are transferred by SFTP, which takes longer",
    )


def test_nothing_that_transfers_files(
    make_host: MakeHost, ssh_home: SshHome, far_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host({"Subsystem": "sftp /bin/false"})
    ssh_home.trust(host)
    monkeypatch.setattr("hsm_core.ssh.connection.SFTP_SERVERS", ())
    config = host.config(python=str(far_python), setup=["PATH=/var/empty"])
    words = failure(config, "rsync", [*LOGIN, "python", "folder", "disk", "hydra"])
    assert words.startswith("rsync is not installed there; nor is SFTP to be had (")
    assert words.endswith("Install rsync 3.1 or newer")


def test_a_program_that_hangs_is_given_up(ssh_host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = put_program(ssh_host, "hanging", "exec sleep 600")
    monkeypatch.setattr("hsm_core.ssh.visit.PATIENCE", 1.0)
    words = failure(ssh_host.config(python=str(hanging)), "python", LOGIN)
    assert words == "our program there did not answer in time"


def test_gpus(ssh_host: SshHost, far_python: Path) -> None:
    listing = LISTING.format(user=ssh_host.user)
    put_program(ssh_host, "nvidia-smi", f"printf '{listing}'")
    fields = {"python": str(far_python), "setup": [f"PATH={ssh_host.home}:$PATH"]}
    for gpus in (None, "auto"):
        status, words = told(ssh_host.config(**fields, gpus=gpus), "gpus")
        assert (status, words.partition(";")[0]) == (Status.GOOD, "2 x NVIDIA A100")
        assert words.endswith(("leases in /run/lock", "leases in /dev/shm"))
    config = ssh_host.config(**fields, gpus=4)
    assert failure(config, "gpus", [*LOGIN, "python", "folder", "disk", "hydra", "rsync"]).startswith(
        "gpus: 4 are wanted"
    )
    put_program(ssh_host, "nvidia-smi", "echo no driver; exit 9")
    status, words = told(ssh_host.config(**fields), "gpus")
    assert status is Status.WARNING
    assert words.endswith("-L failed with 9: no driver")


def test_an_agent_that_can_not_start(ssh_host: SshHost, far_python: Path) -> None:
    config = ssh_host.config(python=str(far_python))
    look(config)
    (code,) = (ssh_host.home / ".hsm" / "agent").iterdir()
    (code / "hsm_core" / "remote" / "agent.py").write_text("raise SystemExit('no agent today')\n")
    words = failure(config, "agent", ALL[: ALL.index("agent")])
    assert words == "the agent did not answer. It said:\nno agent today"
