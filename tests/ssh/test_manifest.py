"""Manifests: what they tell of a folder, what a copy of it may be, and what a hostile one can't do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hsm_core.remote import manifest


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder that an attempt left."""
    folder = tmp_path / "left"
    (folder / "ckpt" / "deep").mkdir(parents=True)
    (folder / "ckpt" / "deep" / "model.pt").write_bytes(b"m" * (manifest.HASHED + 1))
    (folder / "train.log").write_bytes(b"epoch 1\n")
    for name in ("-rf", "two\nlines", "\udcff\udcfe", "ä", '"', "empty"):
        (folder / "ckpt" / name).write_bytes(os.fsencode(name) if name != "empty" else b"")
    (folder / "ckpt" / "latest").symlink_to("deep/model.pt")
    return folder


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_copy_matches_until_something_in_it_differs(left: Path, tmp_path: Path) -> None:
    path, copy = tmp_path / "m.jsonl", tmp_path / "copy"
    manifest.write(str(left), str(path))
    assert sorted(os.listdir(tmp_path)) == ["left", "m.jsonl"]
    shutil.copytree(left, copy, symlinks=True)
    (copy / "more").write_text("what a copy has beside it does not matter")
    assert manifest.check(path, copy) == []
    assert manifest.check(path, left) == []
    assert manifest.check(path, copy, "/munged/") == ["'ckpt/latest' leads elsewhere"]
    (copy / "ckpt" / "latest").unlink()
    (copy / "ckpt" / "latest").symlink_to("/munged/deep/model.pt")
    assert manifest.check(path, copy, "/munged/") == []

    (copy / "ckpt" / "deep" / "model.pt").write_bytes(b"m" * manifest.HASHED)
    (copy / "train.log").write_bytes(b"epoch 2\n")
    (copy / "ckpt" / "two\nlines").unlink()
    (copy / "ckpt" / "latest").unlink()
    (copy / "ckpt" / "latest").symlink_to("-rf")
    (copy / "ckpt" / "empty").unlink()
    os.mkfifo(copy / "ckpt" / "empty")
    assert sorted(manifest.check(path, copy)) == [
        "'ckpt/deep/model.pt' has 1048576 bytes, not 1048577",
        "'ckpt/empty' can't be read: no regular file",
        "'ckpt/latest' leads elsewhere",
        "'ckpt/two\\nlines' is missing",
        "'train.log' has another content",
    ]
    assert len(manifest.check(path, tmp_path / "nowhere")) == len(lines(path)) - 2


def test_what_does_not_travel_is_not_in_it(left: Path, tmp_path: Path) -> None:
    os.mkfifo(left / "pipe")
    (left / "passwd").symlink_to("/etc/passwd")
    (left / "up").symlink_to("../other")
    (left / "round").symlink_to("ckpt/../../left/train.log")
    (left / manifest.PARTIAL).mkdir()
    (left / manifest.PARTIAL / "x").write_text("x")
    (left / "loop").symlink_to("loop")
    (left / "here").symlink_to(".")
    manifest.write(str(left), str(tmp_path / "m"))
    names = {entry["name"] for entry in lines(tmp_path / "m")[1:-1]}
    assert {name for name in names if "/" not in name} == {"train.log", "loop", "here"}
    assert manifest.check(tmp_path / "m", left) == []


def test_ten_thousand_files(tmp_path: Path) -> None:
    for folder in range(100):
        (tmp_path / "left" / str(folder)).mkdir(parents=True)
        for name in range(100):
            (tmp_path / "left" / str(folder) / str(name)).write_bytes(b"%d" % name)
    manifest.write(str(tmp_path / "left"), str(tmp_path / "m"))
    assert lines(tmp_path / "m")[-1] == {"entries": 10_000, "whole": True}
    assert manifest.check(tmp_path / "m", tmp_path / "left") == []
    shutil.rmtree(tmp_path / "left")
    assert len(manifest.check(tmp_path / "m", tmp_path / "left")) == manifest.SHOWN


def test_a_manifest_has_an_end(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LIMIT", manifest._LINE + 300)
    manifest.write(str(left), str(tmp_path / "m"))
    end = lines(tmp_path / "m")[-1]
    assert not end["whole"]
    assert 0 < end["entries"] < 9
    assert manifest.check(tmp_path / "m", left) == []


def test_no_half_of_one_is_left_where_it_cannot_be_written(left: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        manifest.write(str(left), str(tmp_path / "m"))
    assert sorted(os.listdir(tmp_path)) == ["left", "m"]


HEAD, END = b'{"manifest":1}\n', b'{"entries":1,"whole":true}\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "line 1: it has no end"),
        (b'{"manifest":2}\n', "line 1: it is no manifest of format 1"),
        (b"[1]\n", "line 1: no JSON object"),
        (HEAD, "line 2: it has no end"),
        (HEAD + b'{"name":"a","size":1}\n', "line 3: it has no end"),
        (HEAD + b'{"name":"a","size":1', "line 2: it has no end"),
        (HEAD + b'{"name":"../a","size":1}\n' + END, "is no name of a file in the folder"),
        (HEAD + b'{"name":"/etc/passwd","size":1}\n' + END, "is no name of a file in the folder"),
        (HEAD + b'{"name":"a/./b","size":1}\n' + END, "is no name of a file in the folder"),
        (HEAD + b'{"name":"a\\u0000b","size":1}\n' + END, "is no name of a file in the folder"),
        (HEAD + b'{"name":7,"size":1}\n' + END, "line 2: it names no file"),
        (HEAD + b'{"name":"a","size":"1"}\n' + END, "line 2: it names no file"),
        (HEAD + b'{"name":"a","size":true}\n' + END, "line 2: it names no file"),
        (HEAD + b'{"name":"a","link":1}\n' + END, "line 2: it names no file"),
        (HEAD + b'{"name":"a","size":1,"sha256":[]}\n' + END, "line 2: it names no file"),
        (HEAD + b"\xff\xfe\n" + END, "line 2: no JSON"),
        (HEAD + b"[" * 50_000 + b"\n" + END, "line 2: no JSON"),
        (HEAD + b'{"name":"' + b"a" * 100_000 + b'"}\n' + END, "line 2: it has no end"),
        (HEAD + END, "line 2: it is not the end of 0 entries"),
        (HEAD + b'{"name":"a","size":1}\n' + END + b"x", "line 3: it is not the end of 1 entries"),
    ],
)
def test_a_bad_line_is_an_error(tmp_path: Path, text: bytes, why: str) -> None:
    (tmp_path / "m").write_bytes(text)
    with pytest.raises(ValueError, match=why):
        manifest.check(tmp_path / "m", tmp_path)


def test_what_is_no_file_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="no regular file"):
        manifest.check(tmp_path / "pipe", tmp_path)
    with pytest.raises(ValueError, match="can't be read"):
        manifest.check(tmp_path / "link", tmp_path)
    with pytest.raises(FileNotFoundError):
        manifest.check(tmp_path / "nothing", tmp_path)


def test_a_manifest_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LIMIT", 1000)
    (tmp_path / "m").write_bytes(HEAD + b'{"name":"a","size":1}\n' * 100)
    with pytest.raises(ValueError, match="larger than"):
        manifest.check(tmp_path / "m", tmp_path)


def test_links_on_the_way_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"k")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "way").symlink_to(secret)
    (tmp_path / "copy" / "key").symlink_to(secret / "key")
    entries = b'{"name":"way/key","size":1}\n{"name":"key","size":1}\n'
    (tmp_path / "m").write_bytes(HEAD + entries + b'{"entries":2,"whole":true}\n')
    first, second = manifest.check(tmp_path / "m", tmp_path / "copy")
    assert "can't be read" in first
    assert "can't be read" in second
