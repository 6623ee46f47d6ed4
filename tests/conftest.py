"""What all tests share: a state directory of their own, so that no test sees the user's sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("hsm_core.testing")


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`$XDG_STATE_HOME` and `$XDG_CONFIG_HOME` of this test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    return home
