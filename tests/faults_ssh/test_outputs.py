"""What tasks leave on a host comes home as it is: much, many, oddly named; and nothing that is none of theirs."""

from __future__ import annotations

import filecmp
import os

from hsm_core.testing import wait_until
from tests.faults_ssh.conftest import FarSweep, MakeFar
from tests.testbed.sshd import SshHost

APP = r"""
import os, sys, threading, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

ODD = [b"two\nlines", b"-rf", b"--delete", b"#hash", b";semi", b" ", b"*?[x]", b"\xff\xfe", "\u202e".encode()]


def large(out):
    with open(out / "large", "wb") as file:
        for number in range(300):
            file.write(bytes([number % 256]) * (1 << 20))


def small(out):
    for number in range(10_000):
        folder = out / "small" / str(number % 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_text(str(number))


def odd(out):
    for name in ODD:
        with open(os.path.join(os.fsencode(out), name), "wb") as file:
            file.write(name)
        folder = os.path.join(os.fsencode(out), b"in", name)
        os.makedirs(folder)
        os.close(os.open(os.path.join(folder, name), os.O_CREAT))


def links(out):
    (out / "file").write_text("mine")
    (out / "folder").mkdir()
    os.symlink("../file", out / "folder" / "inside")
    os.symlink("/etc/passwd", out / "absolute")
    os.symlink("/etc", out / "etc")
    os.symlink("../../.ssh", out / "above")
    os.symlink("folder/../../1/large", out / "roundabout")
    os.symlink("loop", out / "loop")
    os.symlink(".", out / "folder" / "self")
    os.link(out / "file", out / "hard")
    os.mkfifo(out / "pipe")


def growing(out):
    gate = Path.home() / "gate"
    (out / "vanishing").write_bytes(b"x" * 1_000_000)
    with open(out / "growing", "w") as file:
        count = 0
        while not gate.exists():
            count += 1
            file.write(f"{count}\n" * 1000)
            file.flush()
            (out / "vanishing").unlink(missing_ok=True)
            (out / "vanishing").write_bytes(os.urandom(100_000 - count % 10))
            (out / f"new-{count}").touch()
            (out / f"new-{count - 3}").unlink(missing_ok=True)
        (out / "vanishing").unlink()


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "starts").write_text(str(os.getpid()))
    globals()[cfg.what](out)
    (out / "result.txt").write_text("done")


if __name__ == "__main__":
    main()
"""
KINDS = ("large", "small", "odd", "links")


def test_whatever_it_is(far: FarSweep) -> None:
    (far.folder / "app.py").write_text(APP)
    assert far.launch(f"+what={','.join(KINDS)}").wait(90) == 0, far.said()
    large, small, odd, links = (far.directory / str(index) for index in range(4))
    assert filecmp.cmp(large / "large", far.there(0, "large"), shallow=False)
    assert {path.name: path.read_text() for path in small.glob("small/*/*")} == {str(n): str(n) for n in range(10_000)}

    there = os.fsencode(far.there(2, ""))
    names = {name for name in os.listdir(there) if os.path.isfile(os.path.join(there, name))}
    assert names >= {b"two\nlines", b"-rf", b"--delete", b"\xff\xfe"}
    for name in names:
        assert filecmp.cmp(os.path.join(os.fsencode(odd), name), os.path.join(there, name), shallow=False)
    assert sorted(os.listdir(os.fsencode(odd))) == sorted(os.listdir(there))
    folders = [sorted(names for _, *names in os.walk(os.path.join(top, b"in"))) for top in (os.fsencode(odd), there)]
    assert folders[0] == folders[1]

    ours = {str(path.relative_to(links)): os.readlink(path) for path in links.rglob("*") if path.is_symlink()}
    assert ours == {"folder/inside": "../file", "folder/self": ".", "loop": "loop"}
    assert (links / "file").read_text() == (links / "hard").read_text() == "mine"
    assert not (links / "pipe").exists()
    for link in ("absolute", "etc", "above", "roundabout"):
        assert f"/{link} is a link out of the task's directory" in far.said()
    far.audit()


def test_files_that_grow_change_and_vanish_while_they_come(make_far: MakeFar, ssh_host: SshHost) -> None:
    far = make_far(ssh_host, compute={"result_collection_interval": 0.1})
    (far.folder / "app.py").write_text(APP)
    launcher = far.launch("+what=growing,growing")
    growing, sizes = far.output(0, "growing"), {0}

    def has_grown() -> bool:
        sizes.add(growing.stat().st_size if growing.exists() else 0)
        return len(sizes) > 3

    wait_until(has_grown, "the file to grow here, three times")
    far.open_gate()
    assert launcher.wait(60) == 0, far.said()
    for index in range(2):
        for name in ("growing", "result.txt", *(path.name for path in far.there(index, "").glob("new-*"))):
            assert filecmp.cmp(far.output(index, name), far.there(index, name), shallow=False)
    assert "Traceback" not in far.said()
    far.audit()
