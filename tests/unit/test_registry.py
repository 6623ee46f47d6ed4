"""Sweeps are found by id, by part of one, as the latest, or by path."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import stat
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from hsm_core import events as ev
from hsm_core.exceptions import JournalError, SweepNotFound
from hsm_core.journal import Journal
from hsm_core.registry import RegistryEntry, entries, find, register


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def sweep(tmp_path: Path, name: str = "sweep", sweep_id: str = "sweep_20260115_143022") -> Path:
    """A directory with the journal of a sweep."""
    directory = tmp_path / name
    (directory / ".hsm").mkdir(parents=True)
    journal = Journal.create(directory / ".hsm" / "journal.jsonl")
    journal.append(ev.SweepStarted(sweep_id, ev.FORMAT, "0", "3", "1", "/", (), "a", "h", 1))
    journal.close()
    return directory


def known(tmp_path: Path, *ids: str) -> dict[str, Path]:
    """Register a sweep for each id, in this order."""
    found = {}
    for number, name in enumerate(ids):
        found[name] = tmp_path / f"dir{number}"
        found[name].mkdir()
        assert register(found[name], name) == name
    return found


# --- registering


def test_a_new_sweep_gets_an_id_made_of_the_time(tmp_path: Path, state_home: Path) -> None:
    sweep_id = register(tmp_path)
    assert re.fullmatch(r"sweep_\d{8}_\d{6}", sweep_id)
    record = json.loads((state_home / "hsm" / "sweeps" / sweep_id).read_text())
    assert record["directory"] == str(tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", record["created"])
    assert find(sweep_id) == RegistryEntry(sweep_id, tmp_path)


def test_an_id_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    assert register(tmp_path / "a", "sweep_20260115_143022") == "sweep_20260115_143022"
    assert register(tmp_path / "b", "sweep_20260115_143022") == "sweep_20260115_143022_2"
    assert register(tmp_path / "c", "sweep_20260115_143022") == "sweep_20260115_143022_3"
    assert find("sweep_20260115_143022").directory == tmp_path / "a"
    assert find("sweep_20260115_143022_2").directory == tmp_path / "b"


def test_registering_a_sweep_again_keeps_its_id(tmp_path: Path) -> None:
    known(tmp_path, "sweep_1")
    assert register(tmp_path / "other", "sweep_1") == "sweep_1_2"
    assert register(tmp_path / "dir0", "sweep_1") == "sweep_1"
    assert register(tmp_path / "other", "sweep_1") == "sweep_1_2"


def test_an_id_whose_file_is_just_being_written_is_taken(tmp_path: Path, state_home: Path) -> None:
    known(tmp_path, "sweep_1")
    (state_home / "hsm" / "sweeps" / "sweep_2").touch()
    assert register(tmp_path, "sweep_2") == "sweep_2_2"


def register_at_once(directory: Path, barrier: Barrier, ids: multiprocessing.Queue[str]) -> None:
    barrier.wait()
    ids.put(register(directory, "sweep_20260115_143022"))


def test_sweeps_that_start_at_once_get_different_ids(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    ids: multiprocessing.Queue[str] = context.Queue()
    processes = [
        context.Process(target=register_at_once, args=(tmp_path / f"dir{number}", barrier, ids)) for number in range(6)
    ]
    for process in processes:
        process.start()
    found = sorted(ids.get() for _ in processes)
    for process in processes:
        process.join()
    assert found == ["sweep_20260115_143022", *(f"sweep_20260115_143022_{number}" for number in range(2, 7))]


def test_relative_and_unusual_directories_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_home: Path
) -> None:
    name = "mit Leerzeichen 'ü' \udcff\n"
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    sweep_id = register(Path(name))
    monkeypatch.chdir("/")
    assert find(sweep_id).directory == tmp_path / name


def test_the_registry_is_the_users_own(tmp_path: Path, state_home: Path) -> None:
    old = os.umask(0)
    try:
        sweep_id = register(tmp_path)
    finally:
        os.umask(old)
    folder = state_home / "hsm" / "sweeps"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / sweep_id).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "..", ".hidden", "../up", "a/b", "-x", "a b", "a\n", "x" * 201])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no id for a sweep"):
        register(tmp_path, name)


def test_a_registry_that_can_not_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        register(tmp_path)


@pytest.mark.parametrize("value", [None, "", "relative/path"])
def test_without_a_state_directory_it_is_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    if value is not None:
        monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sweep_id = register(tmp_path)
    assert (tmp_path / "home" / ".local" / "state" / "hsm" / "sweeps" / sweep_id).is_file()


# --- listing


def test_sweeps_are_listed_newest_first(tmp_path: Path) -> None:
    assert entries() == []
    found = known(tmp_path, "sweep_b", "sweep_a", "sweep_c")
    assert entries() == [RegistryEntry(name, found[name]) for name in ("sweep_c", "sweep_a", "sweep_b")]


def test_what_is_gone_or_not_ours_is_not_listed(tmp_path: Path, state_home: Path) -> None:
    found = known(tmp_path, "sweep_a", "sweep_b")
    found["sweep_b"].rmdir()
    folder = state_home / "hsm" / "sweeps"
    for name, content in {"empty": "", "text": "no json", "list": "[]", "half": '{"created": "2"}', ".x": "{}"}.items():
        (folder / name).write_text(content)
    (folder / "directory").mkdir()
    assert [entry.id for entry in entries()] == ["sweep_a"]


def test_a_directory_that_was_used_again_is_listed_under_its_newest_id(tmp_path: Path) -> None:
    register(tmp_path, "sweep_old")
    register(tmp_path, "sweep_new")
    assert entries() == [RegistryEntry("sweep_new", tmp_path)]


# --- finding


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sweep_20260115_143022", "sweep_20260115_143022"),
        ("20260115_143022", "sweep_20260115_143022"),
        ("sweep_20260115_143022_2", "sweep_20260115_143022_2"),
        ("sweep_20260115_15", "sweep_20260115_150000"),
        ("20260116", "sweep_20260116_143022"),
        ("exp", "experiment"),
        ("latest", "sweep_20260115_150000"),
    ],
)
def test_a_sweep_is_found_by_what_is_unique(tmp_path: Path, text: str, meant: str) -> None:
    found = known(
        tmp_path,
        "sweep_20260115_143022",
        "sweep_20260115_143022_2",
        "sweep_20260116_143022",
        "experiment",
        "sweep_20260115_150000",
    )
    assert find(text) == RegistryEntry(meant, found[meant])


def test_a_beginning_of_several_ids_is_refused_with_all_of_them(tmp_path: Path) -> None:
    known(tmp_path, "sweep_20260115_143022", "sweep_20260115_150000")
    for text in ("sweep_2026", "20260115", "sweep"):
        with pytest.raises(SweepNotFound, match=f"'{text}' may mean sweep_20260115_150000, sweep_20260115_143022"):
            find(text)


def test_of_many_possible_ids_only_some_are_named(tmp_path: Path) -> None:
    known(tmp_path, *(f"sweep_{number}" for number in range(1, 9)))
    with pytest.raises(SweepNotFound, match="sweep_8, sweep_7, sweep_6, sweep_5, sweep_4 and 3 more"):
        find("sweep_")


def test_an_unknown_id_is_answered_with_the_nearest(tmp_path: Path) -> None:
    known(tmp_path, "sweep_20260115_143022", "sweep_20251224_080000")
    for text in ("sweep_20260115_143023", "20260115_143023"):
        with pytest.raises(SweepNotFound, match=rf"'{text}'; did you mean sweep_20260115_143022.*\? `hsm sweeps`"):
            find(text)
    with pytest.raises(SweepNotFound, match="no sweep 'xyz'; the latest is sweep_20251224_080000"):
        find("xyz")


@pytest.mark.parametrize("text", ["latest", "sweep_1", ""])
def test_where_nothing_is_registered_that_is_said(text: str) -> None:
    with pytest.raises(SweepNotFound, match=f"no sweep '{text}': none is registered here"):
        find(text)


def test_the_empty_text_means_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(tmp_path, "sweep_1")
    monkeypatch.chdir(sweep(tmp_path))
    with pytest.raises(SweepNotFound):
        find("")


def test_a_path_leads_to_a_sweep_that_nobody_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = sweep(tmp_path)
    found = RegistryEntry("sweep_20260115_143022", directory)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for text in (str(directory), f"{directory}/", "./sweep", "sweep", "~/sweep"):
        assert find(text) == found
    monkeypatch.chdir(directory)
    assert find(".") == found


def test_a_path_needs_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert find(str(sweep(tmp_path))).id == "sweep_20260115_143022"


def test_an_id_is_meant_before_a_directory_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = known(tmp_path, "sweep_1")
    sweep(tmp_path, "sweep_1")
    monkeypatch.chdir(tmp_path)
    assert find("sweep_1").directory == found["sweep_1"]
    assert find("./sweep_1").directory == tmp_path / "sweep_1"


def test_a_path_to_something_else_is_told(tmp_path: Path) -> None:
    for text in (str(tmp_path), str(tmp_path / "gone"), "../../etc/passwd", "~nobody_here/x"):
        with pytest.raises(SweepNotFound, match=r"is no directory of a sweep, it has no \.hsm"):
            find(text)


def test_a_path_to_a_sweep_without_a_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / ".hsm").mkdir()
    with pytest.raises(JournalError, match="missing or empty"):
        find(str(tmp_path))
