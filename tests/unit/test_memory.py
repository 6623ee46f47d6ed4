"""Where the kernel keeps the memory cgroup of a process, and what is said of one that ran out of memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hsm_core.remote.memory import Cgroup, limit_data, locate, shortage_words

V1 = "32 31 0:32 / /cg/cpu rw - cgroup cgroup rw,cpu\n35 31 0:35 {root} {point} rw - cgroup cgroup rw,memory\n"
V2 = "30 23 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("memberships", "mounts", "found"),
    [
        ("5:memory:/a/b\n0::/c\n", V1.format(root="/", point="/cg/memory"), Cgroup.v1("/cg/memory/a/b")),
        ("5:cpu,memory:/a\n", V1.format(root="/", point="/cg/memory"), Cgroup.v1("/cg/memory/a")),
        ("5:memory:/docker/1/x\n", V1.format(root="/docker/1", point="/cg/memory"), Cgroup.v1("/cg/memory/x")),
        ("0::/user.slice/app.slice\n", V2.format(root="/", point="/cg"), Cgroup.v2("/cg/user.slice/app.slice")),
        ("0::/\n", V2.format(root="/", point="/my\\040groups"), Cgroup.v2("/my groups")),
        ("5:memory:/a\n0::/b\n", V2.format(root="/", point="/cg/unified"), None),
        ("3:cpu:/\n", V1.format(root="/", point="/cg/memory"), None),
        ("", "", None),
    ],
    ids=[
        "v1",
        "v1 with others",
        "v1 in a container",
        "v2",
        "a blank in the path",
        "hybrid: v1 counts",
        "none",
        "empty",
    ],
)
def test_the_memory_cgroup_of_a_process(memberships: str, mounts: str, found: Cgroup | None) -> None:
    assert locate(memberships, mounts) == found


def test_words_for_a_shortage() -> None:
    assert shortage_words(512.0, 511.4) == "out of memory (limit 512 MiB, peak 511 MiB)"
    assert shortage_words(None, 20.0) == "out of memory (peak 20 MiB)"


def test_limit_of_a_process_that_runs() -> None:
    code = "input()\ntry: bytearray(1 << 30)\nexcept MemoryError: print('no more')\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        limit_data(child.pid, 500.0)
        told, _ = child.communicate("\n")
    assert told == "no more\n"
    limit_data(child.pid, 500.0)
