"""How sources of tests reach a scheduler of ours, and how they ask it more often than they would a site's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hsm_core.sources.hpc import allowance, source, waiting, watch


def use(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, grace: float = 0.5) -> None:
    """Have this process talk to the scheduler of `environ`; `grace` are seconds that a result is waited for."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(allowance, "EVERY", 0.3)
    monkeypatch.setattr(watch, "GRACE", grace)
    monkeypatch.setattr(watch, "CALLED_OFF", grace)
    monkeypatch.setattr(source, "POLL", 0.5)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(allowance, "GATHER", 0.05)
    monkeypatch.setattr(source, "TICK", 0.05)
