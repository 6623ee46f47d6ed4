"""Hosts from which jobs go to a cluster of ours: all that they share with the launcher is the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.hpc import login_node
from tests.testbed import schedulers
from tests.testbed.sshd import SshHost


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What the sshd of a host is told, so that programs there use the scheduler of `environ`."""
    # sshd_config(5): the first SetEnv counts, and has all variables.
    return {"SetEnv": " ".join(f'"{name}={value}"' for name, value in environ.items())}


def config(host: SshHost, **fields: object) -> SourceConfig:
    """A source whose jobs are submitted on this host; `fields` win."""
    return dataclasses.replace(host.config(**fields), type="hpc")


def use(monkeypatch: pytest.MonkeyPatch, grace: float = 0.5) -> None:
    """As `schedulers.use` does, for a scheduler there."""
    schedulers.use({}, monkeypatch, grace)
    monkeypatch.setattr(login_node, "LAG", 0.1)
