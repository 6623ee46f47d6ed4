"""Taking a directory: of launchers that come at once one gets it, and what a killed one left is in nobody's way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hsm_core import events as ev
from hsm_core.claim import claim
from hsm_core.config import HsmConfig
from hsm_core.exceptions import SweepBusy, SweepExists
from hsm_core.journal import Journal
from hsm_core.owner import Owner, current


def write_sweep(directory: Path) -> None:
    """A sweep without tasks, as a launcher leaves it."""
    facts: dict[str, Any] = {"hsm": "0.1.0", "python": "3.11", "hydra": "1.3.2", "cwd": "/", "app": "train"}
    start = ev.SweepStarted(id="sweep_1", format=ev.FORMAT, argv=(), host="laptop", pid=4711, **facts)
    journal = Journal.create(directory / ".hsm" / "journal.jsonl")
    journal.append(start)
    journal.close()


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory / ".hsm"))


@pytest.mark.parametrize("line", [b"", b'{"seq":1,"t":"2026-'])
def test_what_a_launcher_left_that_was_killed_before_its_first_line_is_removed(tmp_path: Path, line: bytes) -> None:
    hsm = tmp_path / ".hsm"
    (hsm / "snapshot.part").mkdir(parents=True)
    Owner.acquire(hsm).release()
    (hsm / "journal.jsonl").write_bytes(line)
    (hsm / "payload").mkdir()
    owner, resumed = claim(tmp_path, HsmConfig())
    assert (owner.epoch, resumed) == (2, False)
    assert names(tmp_path) == ["owner_0001.json", "owner_0002.json"]


def test_a_directory_that_nobody_owns_yet_is_for_the_first_who_comes(tmp_path: Path) -> None:
    (tmp_path / ".hsm").mkdir()
    assert claim(tmp_path, HsmConfig())[1] is False
    with pytest.raises(SweepBusy, match=f"pid {os.getpid()} "):
        claim(tmp_path, HsmConfig())


@pytest.mark.parametrize("on_existing", ["refuse", "resume"])
def test_a_sweep_that_came_and_went_meanwhile_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_existing: str
) -> None:
    real = Owner.acquire

    def acquire_late(hsm: Path, takeover: bool = False) -> Owner:
        other = real(hsm)
        write_sweep(tmp_path)
        other.release()
        return real(hsm)

    monkeypatch.setattr(Owner, "acquire", acquire_late)
    config = HsmConfig(on_existing=on_existing)
    if on_existing == "resume":
        owner, resumed = claim(tmp_path, config)
        assert (owner.epoch, resumed) == (2, True)
    else:
        with pytest.raises(SweepExists, match="holds the sweep sweep_1 already"):
            claim(tmp_path, config)
        last = current(tmp_path / ".hsm")
        assert last is not None
        assert last.released
    assert "journal.jsonl" in names(tmp_path)
