"""What hsm will use for a host: its own configuration and the user's ssh configuration, keys and known hosts."""

from __future__ import annotations

import getpass
import stat
from collections.abc import Iterator
from pathlib import Path

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SourceError
from hsm_core.sources.settings import DEFAULT, Origin, Setting
from hsm_core.sources.steps import bare
from hsm_core.ssh import ssh_config
from hsm_core.ssh.host_keys import addition, entries_of, fingerprint, shown_path
from hsm_core.ssh.identities import Agent, EncryptedKey, Identities, agent_socket, public_part, read_key
from hsm_core.ssh.route import Hop, destination, route
from hsm_core.text import plural


def settings(name: str, config: SourceConfig, origin: Origin) -> Iterator[Setting]:
    """All that is known of the way to a host without going it."""
    try:
        hops = route(name, config, Identities(config.ssh_key), False, lambda where, step, told: None)
        from_ssh = _ssh_origin(destination(name, config)[1])
    except SourceError as e:
        yield Setting("host", config.host or name, origin("host"), bare(str(e), name))
        return
    *jumps, last = hops
    yield from _address(name, config, last, origin, from_ssh)
    for jump in jumps:
        yield Setting("jump host", jump.address, from_ssh("proxyjump"))
    if "proxycommand" in last.settings:
        yield Setting("ProxyCommand", last.settings["proxycommand"], from_ssh("proxycommand"))
    yield from _keys(config, last, origin, from_ssh)
    for hop in hops:
        yield _host_key(hop, last, config, origin)
    yield Setting("python", config.python or "python3", origin("python"))
    if config.project_dir is None:
        yield Setting("project_dir", "a copy of the project is made there")


def _ssh_origin(host: str) -> Origin:
    """Which file of the ssh configuration says something about a host, by the keys of that."""
    known: dict[str, str] = {}
    for count, file in enumerate(ssh_config.FILES, 1):
        found = ssh_config.load(host, None, None, ssh_config.FILES[:count]).lookup(host)
        for key, value in found.items():
            if key != "hostname" or value != host:
                known.setdefault(key, file)
    return lambda key: known.get(key, DEFAULT)


def _address(name: str, config: SourceConfig, hop: Hop, origin: Origin, from_ssh: Origin) -> Iterator[Setting]:
    named_user, given = destination(name, config)
    alias = from_ssh("hostname")
    by_name = "the source's name" if origin("host") == DEFAULT else origin("host")
    if alias == DEFAULT:
        yield Setting("host", hop.link.host, by_name)
    else:
        yield Setting("host", f"{hop.link.host} ({given})", f"{by_name}, {alias}")
    in_host = config.user is None and named_user is not None
    user = origin("host") if in_host else origin("user") if config.user is not None else from_ssh("user")
    me = " (your name here)" if user == DEFAULT and hop.link.user == getpass.getuser() else ""
    yield Setting("user", f"{hop.link.user}{me}", user)
    yield Setting("port", str(hop.link.port), origin("port") if config.port is not None else from_ssh("port"))


def _keys(config: SourceConfig, hop: Hop, origin: Origin, from_ssh: Origin) -> Iterator[Setting]:
    """The files in which keys are looked for, and the agent; of places that nobody named only those that are there."""
    path = agent_socket(hop.settings)
    agent = Agent(path)
    try:
        held = {key.asbytes(): key for key in agent.get_keys()}
    finally:
        agent.close()
    own = None if config.ssh_key is None else Path(config.ssh_key).expanduser()
    usable = len(held)
    for file in Identities(config.ssh_key).files(hop.settings):
        source = origin("ssh_key") if file == own else from_ssh("identityfile")
        if source == DEFAULT and not file.exists():
            continue
        words, problem, opens = _key(file, public_part(file) in held, named=file == own)
        usable += opens
        yield Setting("key", f"{shown_path(file)}: {words}", source, problem)
    if path is None:
        yield Setting("ssh agent", "none", from_ssh("identityagent"))
    else:
        told = plural(len(held), "key") if held else "does not answer, or has no keys"
        yield Setting(
            "ssh agent",
            f"{path}: {told}",
            from_ssh("identityagent") if "identityagent" in hop.settings else "$SSH_AUTH_SOCK",
        )
    if not usable:
        words = (
            "there is none to log in with: make one with ssh-keygen and have it taken there by ssh-copy-id, or name "
        )
        yield Setting("keys", "none", DEFAULT, f"{words}one with ssh_key")


def _key(file: Path, held: bool, *, named: bool) -> tuple[str, str, bool]:
    """What a key file is, what is wrong with it, and whether one can log in with it, as far as that shows here."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as e:
        lack = e.strerror or str(e)
        return lack, f"ssh_key {shown_path(file)} can't be used: {lack}" if named else "", False
    words = f"mode {mode:03o}"
    others = f"others may read {shown_path(file)}: chmod 600 {shown_path(file)}" if mode & 0o077 else ""
    if held:
        return f"{words}, in the agent", others, True
    try:
        read_key(file, None)
    except EncryptedKey:
        return f"{words}, needs its passphrase: asked for on a terminal, else ssh-add {shown_path(file)}", others, True
    except (OSError, ValueError) as e:
        reason = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        return f"{words}, {reason}", f"{shown_path(file)} can't be used: {reason}", False
    return f"{words}, no passphrase", others, True


def _host_key(hop: Hop, last: Hop, config: SourceConfig, origin: Origin) -> Setting:
    whose = "" if hop is last else f"{hop.address}: "
    try:
        entries = [entry for entry in entries_of(hop.peer) if not entry.marker]
    except SourceError as e:
        return Setting("host key", f"{whose}unknown", DEFAULT, str(e))
    if entries:
        told = ", ".join(f"{fingerprint(entry.key)} ({entry.kind})" for entry in entries)
        return Setting("host key", f"{whose}{told}", ", ".join(entry.place for entry in entries))
    if config.host_key_policy == "accept_new":
        return Setting("host key", f"{whose}not known: the first that comes is taken", origin("host_key_policy"))
    advice = (
        f"it will be refused. Test the source, or add it once its fingerprint is checked:\n    {addition(hop.peer)}"
    )
    return Setting("host key", f"{whose}not known", DEFAULT, advice)
