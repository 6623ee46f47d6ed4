"""Which host keys are taken, against real hosts; and how the files are read."""

from __future__ import annotations

import logging
import stat
import subprocess
from pathlib import Path

import pytest

from hsm_core.exceptions import SourceError
from hsm_core.ssh.connection import Connection
from hsm_core.ssh.host_keys import fits, read
from tests.testbed.fixtures import MakeHost
from tests.testbed.sshd import SshHome, SshHost, make_key


def opens(host: SshHost, **fields: object) -> None:
    """Log in there and out again."""
    connection = Connection("server1", host.config(**fields))
    try:
        connection.open()
    finally:
        connection.close()


def refusal(host: SshHost, **fields: object) -> str:
    """The words with which its key is refused; nobody has logged in then."""
    before = host.logins()
    with pytest.raises(SourceError) as error:
        opens(host, **fields)
    assert type(error.value) is SourceError, "that is nothing to try again"
    assert host.logins() == before
    return str(error.value)


def where(host: SshHost) -> str:
    return f"server1 ({host.user}@{host.address}:{host.port})"


def test_an_unknown_key_is_refused_until_the_command_that_is_told_was_run(
    make_host: MakeHost, ssh_home: SshHome
) -> None:
    host = make_host()
    words = refusal(host)
    assert words.startswith(f"{where(host)}: its host key is not known: {host.fingerprint()} (ssh-ed25519).")
    assert "host_key_policy: accept_new" in words
    command = next(line.strip() for line in words.splitlines() if "ssh-keyscan" in line)
    assert command == f"ssh-keyscan -p {host.port} {host.address} >> ~/.ssh/known_hosts"
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    opens(host)


def test_a_changed_key_is_refused_until_the_commands_that_are_told_were_run(
    ssh_host: SshHost, ssh_home: SshHome, make_host: MakeHost
) -> None:
    old = ssh_host.fingerprint()
    ssh_home.known_hosts.write_text("# mine\n\n" + ssh_home.known_hosts.read_text())
    ssh_host.new_host_key()
    for policy in ("verify", "accept_new"):
        words = refusal(ssh_host, host_key_policy=policy)
        assert f"{where(ssh_host)}: its host key CHANGED: it is now {ssh_host.fingerprint()} (ssh-ed25519)" in words
        assert f"known is ~/.ssh/known_hosts:3 ({old}, ssh-ed25519)" in words
    commands = [line.strip() for line in words.splitlines()[1:]]
    assert commands == [
        f"ssh-keygen -f ~/.ssh/known_hosts -R '[{ssh_host.address}]:{ssh_host.port}'",
        f"ssh-keyscan -p {ssh_host.port} {ssh_host.address} >> ~/.ssh/known_hosts",
    ]
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    opens(ssh_host)


def test_a_new_key_is_accepted_where_that_was_asked_for(
    make_host: MakeHost, ssh_home: SshHome, caplog: pytest.LogCaptureFixture
) -> None:
    host, other = make_host(), make_host()
    ssh_home.config.write_text("HashKnownHosts no\n")
    ssh_home.known_hosts.write_text(other.known_hosts_line.rstrip("\n"))
    opens(host, host_key_policy="accept_new")
    assert ssh_home.known_hosts.read_text() == other.known_hosts_line + host.known_hosts_line
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    told = f"its host key {host.fingerprint()} (ssh-ed25519) is new and from now on known, in ~/.ssh/known_hosts"
    assert record.message == f"{where(host)}: {told}"
    opens(host)
    opens(other, host_key_policy="accept_new")
    assert len(caplog.records) == 1
    host.new_host_key()
    assert "CHANGED" in refusal(host, host_key_policy="accept_new")


def test_known_hosts_is_made_for_its_owner_alone(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    ssh_home.ssh.rmdir()
    opens(host, host_key_policy="accept_new")
    assert stat.S_IMODE(ssh_home.ssh.stat().st_mode) == 0o700
    assert stat.S_IMODE(ssh_home.known_hosts.stat().st_mode) == 0o600
    opens(host)


def test_a_key_of_another_kind_is_a_changed_one(ssh_host: SshHost) -> None:
    ssh_host.new_host_key("rsa")
    words = refusal(ssh_host, host_key_policy="accept_new")
    assert f"CHANGED: it is now {ssh_host.fingerprint()} (ssh-rsa), known is ~/.ssh/known_hosts:1" in words


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_host_is_asked_for_the_kind_of_key_that_is_known(
    make_host: MakeHost, ssh_home: SshHome, tmp_path: Path, kind: str
) -> None:
    host = make_host()
    make_key(host.folder / "second", kind)
    # sshd reads it again; HostKey may be named twice.
    host.settings["HostKey"] = f"{host.host_key}\nHostKey {host.folder / 'second'}"
    host.stop()
    host.start()
    public = " ".join((host.folder / "second.pub").read_text().split()[:2])
    ssh_home.known_hosts.write_text(f"{host.known_as} {public}\n")
    opens(host)


def test_a_revoked_key_is_refused(ssh_host: SshHost, ssh_home: SshHome) -> None:
    with open(ssh_home.known_hosts, "a") as file:
        file.write(f"@revoked * {ssh_host.public_key}\n")
    for policy in ("verify", "accept_new"):
        words = refusal(ssh_host, host_key_policy=policy)
        assert f"{ssh_host.fingerprint()} (ssh-ed25519) is revoked in ~/.ssh/known_hosts:2" in words


def test_an_authority_is_told_of_where_it_would_have_helped(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, other = make_host(), make_host()
    ssh_home.known_hosts.write_text(f"@cert-authority * {other.public_key}\n")
    assert "~/.ssh/known_hosts:1 names an authority that signs its key, which hsm can't check" in refusal(host)
    ssh_home.trust(host)
    opens(host)


def test_hashed_names(make_host: MakeHost, ssh_home: SshHome) -> None:
    host, other = make_host(), make_host()
    ssh_home.trust(host, other)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(ssh_home.known_hosts)], check=True, capture_output=True)
    assert host.address not in ssh_home.known_hosts.read_text()
    opens(host)
    opens(other)
    host.new_host_key()
    assert "known is ~/.ssh/known_hosts:1" in refusal(host)


def test_new_names_are_hashed_where_ssh_does_so(make_host: MakeHost, ssh_home: SshHome) -> None:
    ssh_home.config.write_text("HashKnownHosts yes\n")
    host = make_host()
    opens(host, host_key_policy="accept_new")
    assert host.address not in ssh_home.known_hosts.read_text()
    found = ["ssh-keygen", "-F", host.known_as, "-f", str(ssh_home.known_hosts)]
    assert host.public_key in subprocess.run(found, check=True, capture_output=True, text=True).stdout
    opens(host)


def test_a_key_known_without_the_port(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    ssh_home.known_hosts.write_text(f"{host.address} {host.public_key}\n")
    opens(host)


def test_files_that_the_ssh_configuration_names(make_host: MakeHost, ssh_home: SshHome, tmp_path: Path) -> None:
    host = make_host()
    mine, system = tmp_path / "my hosts", tmp_path / "system"
    files = f'UserKnownHostsFile "{mine}" ~/.ssh/more\nGlobalKnownHostsFile {system}\n'
    ssh_home.config.write_text(f"{files}HashKnownHosts no\n")
    assert f">> '{mine}'" in refusal(host)
    for file in (system, mine, ssh_home.ssh / "more"):
        file.write_text(host.known_hosts_line)
        opens(host)
        file.unlink()
    opens(host, host_key_policy="accept_new")
    assert mine.read_text() == host.known_hosts_line


def test_one_file_whose_name_has_a_space(make_host: MakeHost, ssh_home: SshHome, tmp_path: Path) -> None:
    host = make_host()
    (tmp_path / "my hosts").write_text(host.known_hosts_line)
    ssh_home.config.write_text(f'UserKnownHostsFile "{tmp_path}/my hosts"\n')
    opens(host)
    ssh_home.config.write_text(f'UserKnownHostsFile "{tmp_path}/other hosts" "{tmp_path}/my hosts"\n')
    opens(host)


def test_no_file_to_write_to(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    ssh_home.config.write_text("UserKnownHostsFile none\n")
    assert "no file where it could be written" in refusal(host, host_key_policy="accept_new")
    ssh_home.config.unlink()
    ssh_home.known_hosts.mkdir()
    assert "known_hosts can't be read" in refusal(host, host_key_policy="accept_new")
    ssh_home.known_hosts.rmdir()
    ssh_home.ssh.rmdir()
    ssh_home.ssh.write_text("")
    assert "its host key is new and can't be written down" in refusal(host, host_key_policy="accept_new")


def test_a_host_key_alias(make_host: MakeHost, ssh_home: SshHome) -> None:
    host = make_host()
    ssh_home.config.write_text(f"Host {host.address}\nHostKeyAlias gpu-box\n")
    words = refusal(host)
    assert f"ssh -p {host.port} {host.user}@{host.address} " in words
    assert "ssh-keyscan" not in words
    ssh_home.known_hosts.write_text(f"gpu-box {host.public_key}\n")
    opens(host)


def test_every_jump_host_is_verified(make_host: MakeHost, ssh_home: SshHome) -> None:
    jump, host = make_host(), make_host()
    ssh_home.config.write_text(
        f"Host {host.address}\nProxyJump {jump.user}@{jump.address}:{jump.port}\n"
        f"Host {jump.address}\nIdentityFile {jump.key.path}\n"
    )
    ssh_home.trust(host)
    words = refusal(host)
    assert f"server1, jump host ({jump.user}@{jump.address}:{jump.port}): its host key is not known" in words
    ssh_home.known_hosts.write_text("")
    ssh_home.trust(jump)
    words = refusal(host)
    assert f"{where(host)}: its host key is not known: {host.fingerprint()}" in words
    assert f"ssh -p {host.port} {host.user}@{host.address} " in words, "ssh-keyscan does not jump"
    ssh_home.trust(host)
    opens(host)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "name", "fit"),
    [
        ("host", "host", True),
        ("host", "HOST", True),
        ("host", "host2", False),
        ("a,host,b", "host", True),
        ("*.example.com", "x.example.com", True),
        ("*.example.com", "example.com", False),
        ("h?st", "host", True),
        ("*,!host", "host", False),
        ("!host,*", "host", False),
        ("!host", "other", False),
        ("[host]:2222", "[host]:2222", True),
        ("[host]:*", "[host]:2222", True),
        ("host", "[host]:2222", False),
        ("h.st", "host", False),
        ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.61", True),
        ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.62", False),
        ("|1|no base64|x", "host", False),
        ("|1|", "host", False),
    ],
)
def test_names(names: str, name: str, fit: bool) -> None:
    assert fits(names, name) is fit


def test_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJxw"
    lines = ["", "# host " + key, "host", "host ssh-ed25519 !!!", f"host {key} a comment", f"@revoked\thost\t{key}"]
    file.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe " + key.encode() + b"\r\n")
    found = [(entry.line, entry.marker, entry.kind) for entry in read(file)]
    assert found == [(5, "", "ssh-ed25519"), (6, "@revoked", "ssh-ed25519"), (7, "", "ssh-ed25519")]
    assert list(read(tmp_path / "none")) == []
