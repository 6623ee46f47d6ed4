"""Files of another user, and places where another user could put some: refused with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.ownership import refuse_open_directory
from hsm_core.testing import wait_until
from tests.faults.conftest import Sweep

NOBODY = 65534


def give_away(path: Path) -> None:
    """Make nobody the owner of a path and all below it."""
    if os.geteuid() != 0:
        pytest.skip("files of another user can be made by root only")
    for one in (path, *path.rglob("*")):
        os.chown(one, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture
def ran(sweep: Sweep) -> Iterator[Sweep]:
    """A sweep of four tasks of which two have run."""
    sweep.launch("+x=range(4)", "+gated=2")
    wait_until(lambda: sweep.has_begun() and len(sweep.finished()) == 2, "the first two tasks")
    sweep.kill()
    sweep.wait_for_peace()
    sweep.open_gate()
    yield sweep
    assert not (sweep.folder / "marker").exists()


def test_a_sweep_of_somebody_else_is_not_gone_on_with(ran: Sweep) -> None:
    """Whoever made it could have written any command into its journal."""
    journal = ran.directory / ".hsm" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"app.py"', "\"-c\", \"open('marker', 'w')\""))
    before = journal.read_bytes()
    give_away(ran.directory / ".hsm")
    assert ran.complete().wait(60) == 1
    assert ".hsm belongs to nobody, you are root: going on with it would run what it says" in ran.said()
    for how in ("resume", "overwrite"):
        assert ran.launch("+x=range(4)", f"hydra.launcher.on_existing={how}").wait(60) == 1
    assert ran.said().count(".hsm belongs to nobody") == 3
    assert journal.read_bytes() == before


def test_a_sweep_that_others_may_write_to_is_not_gone_on_with(ran: Sweep) -> None:
    hsm = ran.directory / ".hsm"
    hsm.chmod(0o770)
    assert ran.complete().wait(60) == 1
    assert f"others may write in {hsm}" in ran.said()
    assert f"chmod go-w {hsm}" in ran.said()
    hsm.chmod(0o700)
    assert ran.complete().wait(60) == 0, ran.said()
    ran.audit()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_directories_that_are_shared(sweep: Sweep, mode: int) -> None:
    """With everyone: only where others can't replace what is ours. With a group: yes."""
    sweep.directory.mkdir()
    sweep.directory.chmod(mode)
    code = sweep.launch("+x=1").wait(60)
    if mode == 0o777:
        assert code == 1
        assert f"{sweep.directory} may be written by everyone" in sweep.said()
        assert not (sweep.directory / ".hsm").exists()
    else:
        assert code == 0, sweep.said()
        assert stat.S_IMODE((sweep.directory / ".hsm").stat().st_mode) == 0o700
        sweep.audit()


def test_a_file_system_without_permissions_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows drives show everything as open to everyone."""
    tmp_path.chmod(0o777)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: _open(real(path, **how)))
    refuse_open_directory(tmp_path)


def _open(found: os.stat_result) -> os.stat_result:
    return os.stat_result((found.st_mode | 0o777, *found[1:]))


@pytest.mark.parametrize("link", [True, False])
def test_something_put_where_the_sweep_will_be(sweep: Sweep, link: bool) -> None:
    elsewhere = sweep.folder / "elsewhere"
    elsewhere.mkdir()
    sweep.directory.mkdir()
    place = sweep.directory / ".hsm"
    if link:
        place.symlink_to(elsewhere)
    else:
        place.write_text("")
    assert sweep.launch("+x=1").wait(60) == 1
    place.unlink()
    assert f"{place} is no directory: it was not made by hsm" in sweep.said()
    assert list(elsewhere.iterdir()) == []


def test_settings_of_somebody_else_are_not_read(sweep: Sweep) -> None:
    path = sweep.folder / "hsm_config.yaml"
    path.write_text("strategy: mine.py:Mine\n")
    (sweep.folder / "mine.py").write_text("open('marker', 'w')\nclass Mine: pass\n")
    give_away(path)
    assert sweep.launch("+x=1").wait(60) == 1
    assert "hsm_config.yaml: belongs to nobody, and could make you run anything" in sweep.said()
    assert not (sweep.folder / "marker").exists()
    assert not (sweep.directory / ".hsm").exists()
    path.write_text("worker: spawn\n")
    assert sweep.launch("+x=1", "hydra.launcher.config_file=hsm_config.yaml").wait(60) == 0, sweep.said()
    sweep.audit()


def test_settings_that_everyone_may_write_are_not_read(sweep: Sweep) -> None:
    path = sweep.folder / "hsm_config.yaml"
    path.write_text("worker: spawn\n")
    path.chmod(0o666)
    assert sweep.launch("+x=1").wait(60) == 1
    assert "hsm_config.yaml: may be written by everyone" in sweep.said()


def test_the_settings_of_whoever_the_app_is_of_are_read(sweep: Sweep) -> None:
    """Root in a container, or a colleague in another one's project: the app's own code is run anyway."""
    (sweep.folder / "hsm_config.yaml").write_text("worker: spawn\n")
    give_away(sweep.folder)
    assert sweep.launch("+x=1").wait(60) == 0, sweep.said()
    sweep.audit()


def test_nothing_is_put_where_everyone_may_write(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = sweep.folder / "tmp"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    launcher = sweep.launch("+x=1,2", "+gated=0")
    sweep.wait_for(0, "starts")
    assert os.listdir(shared) == []
    sweep.open_gate()
    assert launcher.wait(60) == 0, sweep.said()
    assert os.listdir(shared) == []
    sweep.audit()
