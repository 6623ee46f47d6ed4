"""The two kinds of sites do the same; and what is made of a far one that does not answer as it should."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote.record import put
from hsm_core.sources.hpc import login_node
from hsm_core.sources.hpc.login_node import There
from hsm_core.sources.hpc.site import Found, Here, Left, Lost, Mark, Site
from tests.testbed.site_line import Line, reach


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """Those that a test has opened."""
    opened: list[Line] = []
    yield opened
    for line in opened:
        line.let_go()


@pytest.fixture(params=["here", "there"])
def site(request: pytest.FixtureRequest, tmp_path: Path, lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("OURS", "here")
    monkeypatch.setenv("UNWANTED", "yes")

    def come() -> Any:
        lines.append(reach(tmp_path))
        return lines[-1]

    found: Site = Here() if request.param == "here" else There(come)
    found.start()
    return found


def test_programs_run_in_the_environment_that_is_wanted(site: Site) -> None:
    environ = {**site.environ, "OURS": "changed", "MORE": "ü\n"}
    del environ["UNWANTED"]
    ran = site.run(["sh", "-c", 'printf %s "$OURS${UNWANTED-}$MORE"; printf "\\377" >&2; exit 3'], environ, 10.0)
    assert (ran.code, ran.out, ran.err) == (3, "changedü\n", "\ufffd")


def test_a_program_that_takes_too_long(site: Site) -> None:
    ran = site.run(["sh", "-c", "echo so far; exec sleep 60"], site.environ, 0.5)
    assert (ran.code, ran.out) == (None, "so far\n")


def test_a_program_that_is_not_there(site: Site) -> None:
    assert site.missing(["sh", "no-such-program"]) == ["no-such-program"]
    with pytest.raises(Unavailable, match=r"^no-such-program can't be run: No such file or directory"):
        site.run(["no-such-program"], site.environ, 1.0)


def test_who_is_there(site: Site) -> None:
    assert site.user == subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_folder_of_a_batch(site: Site, tmp_path: Path) -> None:
    top, records = tmp_path / "hpc", tmp_path / "results"
    records.mkdir()
    assert site.find(str(top), str(records)) == []
    folder = str(top / "hsm-1")
    site.write(folder, {"resources": {"nodes": 1}, "attempts": [{"id": "a"}, {"id": "b"}]})
    site.put(f"{folder}/job.sh", "#!/bin/sh\n")
    assert (top / "hsm-1" / "job.sh").read_text() == "#!/bin/sh\n"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (top / "hsm-1", *(top / "hsm-1").iterdir()))
    (top / "damaged").mkdir()
    (top / "damaged" / "batch.json").write_text("{")
    assert site.find(str(top), str(records)) == [Found(folder, ["a", "b"], {"nodes": 1}, None, False)]
    site.submitted(folder, "12")
    for name in ("a", "b"):
        (records / f"{name}.json").touch()
    assert site.find(str(top), str(records)) == [Found(folder, ["a", "b"], {"nodes": 1}, "12", True)]
    site.void(folder)
    site.void(folder)
    assert site.find(str(top), str(records)) == []
    site.remove(folder)
    site.remove(folder)
    assert not (top / "hsm-1").exists()


def test_what_can_not_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=rf"{tmp_path}/file") as told:
        site.write(str(tmp_path / "file" / "batch"), {})
    assert told.value.errno == errno.ENOTDIR


def test_marks(site: Site, tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert site.news({folder: 0, "/none": 0}) == {}
    put(f"{folder}/a.0.started", {"ev": "started", "host": "n1", "pid": 7, "output_dir": "/there/0", "gpus": None})
    (tmp_path / "a.0.begun").touch()
    (tmp_path / "b.0.ended").touch()
    assert {key: sorted(names) for key, names in site.news({folder: 0}).items()} == {
        folder: ["a.0.started", "b.0.ended"]
    }
    assert site.news({folder: 2}) == {}
    assert site.begun([f"{folder}/a.0.started", f"{folder}/b.0.ended", f"{folder}/none"]) == [
        Mark("n1", 7, "/there/0"),
        None,
        None,
    ]


def test_what_elements_left(site: Site, tmp_path: Path) -> None:
    folder = str(tmp_path)
    put(f"{folder}/done.json", {"status": "completed"})
    put(f"{folder}/ended.json", {"cause": "cancelled"})
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "ended.0.begun").touch()
    (tmp_path / "log").write_bytes(b"x" * 5000 + b"the end\xff")
    asked = [(f"{folder}/{name}.json", f"{folder}/{name}", f"{folder}/log") for name in ("done", "ended", "none")]
    done, ended, none = site.left(asked)
    said = ("x" * 5000 + "the end\ufffd")[-4096:]
    assert done == Left({"status": "completed"}, "", False, None)
    assert ended == Left({"cause": "cancelled"}, "", True, said)
    assert none == Left(None, "", False, said)
    (damaged,) = site.left([(f"{folder}/damaged.json", "/none", "/none")])
    assert (damaged.record, damaged.said) == (None, None)
    assert damaged.wrong.startswith("no JSON: ")


# --- a far one


def test_it_comes_back_after_a_loss(tmp_path: Path, lines: list[Line]) -> None:
    def come() -> Any:
        lines.append(reach(tmp_path))
        return lines[-1]

    site = There(come)
    assert site.missing(["sh"]) == []
    lines[-1].close()
    with pytest.raises(Lost, match=r"^the connection was lost: "):
        site.missing(["sh"])
    assert site.missing(["sh"]) == []
    assert len(lines) == 2


def test_it_is_not_tried_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tries = 1000.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def come() -> Any:
        tries.append(now - 1000.0)
        raise Unavailable("no route to host")

    site = There(come)
    while now < 1100.0:
        with pytest.raises(Lost, match=r"^no route to host$"):
            site.missing(["sh"])
        now += 0.25
    assert tries == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5]


def test_what_nobody_can_do_anything_about_is_told_as_it_is() -> None:
    def come() -> Any:
        raise SourceError("its host key has changed")

    with pytest.raises(SourceError, match=r"^its host key has changed$") as told:
        There(come).missing(["sh"])
    assert not isinstance(told.value, Unavailable)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("hello", "what our program there answers can't be understood: "),
        ("[" * 100_000, "what our program there answers can't be understood: "),
        ("[]", "what our program there answers can't be understood: "),
        ('{"value": {}}', "what our program there answers can't be understood: Expected `array`, got `object`"),
        ('{"value": [7]}', "what our program there answers can't be understood: Expected `str`, got `int`"),
        ('{"errno": "7", "why": ""}', "what our program there answers can't be understood: "),
        ("x" * 2000, "what our program there answers is longer than 0 MiB"),
    ],
)
def test_answers_that_are_none(
    answer: str, words: str, lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(answer) == 2000:
        monkeypatch.setattr(login_node, "LINE_LIMIT", 1000)
    (tmp_path / "answer").write_text(f"{answer}\n")

    def come() -> Any:
        lines.append(Line("sh", "-c", f"read line; cat '{tmp_path}/answer'; exec cat"))
        return lines[-1]

    with pytest.raises(SourceError) as told:
        There(come).missing(["sh"])
    assert not isinstance(told.value, Unavailable)
    assert str(told.value).startswith(words)


def test_no_answer_in_time(lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    def come() -> Any:
        lines.append(Line("sleep", "60"))
        return lines[-1]

    with pytest.raises(Lost, match=r"^the connection was lost: it said so$"):
        There(come).ask([("facts", {})], 0.2)
