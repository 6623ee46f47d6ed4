"""The stand-in says what the real server said: same fields in the same order, same words, same exit codes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hsm_core.pbs import status
from hsm_core.testing import wait_until
from tests.pbs.recordings import Exchange, exchanges, recorded
from tests.testbed.pbs import listing
from tests.testbed.pbs.bed import StandIn

NOT_ALWAYS = {"session_id"}
"""fields that a short job has or not, by how far the node's daemon had come"""


@pytest.fixture
def home(stand_in: StandIn, tmp_path: Path) -> Path:
    """Where commands are given, with the scripts of the recordings."""
    for name, text in {"job.sh": "#!/bin/bash\nsleep 1\necho hi\n", "e3.sh": "#!/bin/bash\nexit 3\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "segv.sh").write_text("#!/bin/bash\nkill -SEGV $$\nsleep 5\n")
    return tmp_path


COMPARED = (
    *("job_state", "substate", "Exit_status", "run_count", "Hold_Types", "Resource_List", "Submit_arguments"),
    *("Stageout_status", "executable", "argument_list", "array_state_count", "array_indices_remaining"),
)
"""fields whose values do not depend on when and where"""


def shown(stand_in: StandIn, *ids: str) -> dict[str, dict[str, Any]]:
    """What the stand-in shows of jobs, with their subjobs."""
    said = stand_in.run("qstat", "-x", "-t", "-E", "-f", "-F", "json", *ids)
    return dict(json.loads(said.stdout).get("Jobs", {}))


def wait_for(stand_in: StandIn, id: str, letter: str) -> None:
    wait_until(lambda: shown(stand_in, id)[id]["job_state"] == letter, f"{id} to be {letter}")


def real(exchange: Exchange) -> dict[str, dict[str, Any]]:
    return dict(json.loads(exchange.out, strict=False)["Jobs"])


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """The same fields in the same order, with the same values where these don't depend on when and where."""
    for name in ("Variable_List", "Resource_List", "resources_used"):
        assert list(ours.get(name, {})) == list(theirs.get(name, {})), name
    assert [name for name in ours if name not in NOT_ALWAYS] == [name for name in theirs if name not in NOT_ALWAYS]
    for name in COMPARED:
        # What an array shows while some of its subjobs live depends on which of them ended last.
        if name != "Exit_status" or ours["job_state"] != "B":
            assert ours.get(name) == theirs.get(name), name
    assert plain(ours.get("comment")) == plain(theirs.get("comment"))


def plain(text: str | None) -> str | None:
    """Without times and users."""
    return text and re.sub(r"\w{3} \w{3} \d\d at \d\d:\d\d|(?<=by )\w+@\w+", "-", text)


@pytest.mark.parametrize(
    ("recording", "submit", "signal", "letter"),
    [
        ("11", "qsub -N blk -l select=1:ncpus=2 -- /bin/sleep 14", None, "R"),
        ("12", "qsub -h -N held job.sh", None, "H"),
        ("13", "qsub -N fok -l select=1:ncpus=1:mem=100mb -l walltime=00:01:00 job.sh", None, "F"),
        ("14", "qsub -N fexit3 e3.sh", None, "F"),
        ("15", "qsub -N fsegv segv.sh", None, "F"),
        ("16", "qsub -N fqsig -- /bin/sleep 100", "qsig -s SIGKILL", "F"),
        ("18", "qsub -N fdel -- /bin/sleep 100", "qdel", "F"),
        ("19", "qsub -h -N fdelq -- /bin/sleep 100", "qdel", "F"),
    ],
)
def test_a_job_is_shown_as_it_was(
    recording: str, submit: str, signal: str | None, letter: str, stand_in: StandIn, home: Path
) -> None:
    id = stand_in.run(*shlex.split(submit), cwd=home).stdout.strip()
    if signal is not None:
        wait_for(stand_in, id, "H" if "-h" in submit else "R")
        assert stand_in.run(*signal.split(), id).returncode == 0
    wait_for(stand_in, id, letter)
    [theirs] = real(recorded(recording, "qstat -x -f -F json")).values()
    same(shown(stand_in, id)[id], theirs)


def test_a_time_limit_is_kept_as_it_was(stand_in: StandIn, home: Path) -> None:
    id = stand_in.run(
        "qsub", "-N", "fwall", "-l", "walltime=00:00:01", "--", "/bin/sleep", "100", cwd=home
    ).stdout.strip()
    wait_for(stand_in, id, "F")
    [theirs] = real(recorded("17", "qstat -x -f -F json")).values()
    ours = shown(stand_in, id)[id]
    for told in (ours, theirs):
        told["Resource_List"].pop("walltime")
        told.pop("Submit_arguments")
    same(ours, theirs)
    killed = r"=>> PBS: job killed: walltime \d+ exceeded limit 1\n"
    assert re.fullmatch(killed, (home / "fwall.e1").read_text())


def test_an_array_is_shown_as_it_was(stand_in: StandIn, home: Path) -> None:
    stand_in.set(ncpus=2)
    go = [home / f"go{index}" for index in range(4)]
    wait = 'while ! [ -e "$PBS_O_WORKDIR/go$PBS_ARRAY_INDEX" ]; do sleep 0.02; done; exit $PBS_ARRAY_INDEX\n'
    head = "#!/bin/bash\n#PBS -N arr\n#PBS -l select=1:ncpus=1\n#PBS -l walltime=00:01:00\n"
    (home / "arr.sh").write_text(head + wait)
    assert stand_in.run("qsub", "-J", "0-3", "arr.sh", cwd=home).stdout == "1[].pbs1\n"
    wait_for(stand_in, "1[1].pbs1", "R")
    compare_all(stand_in, recorded("20", "qstat -t -f -F json '70[].pbs1'"))
    for path in go[:2]:
        path.touch()
    wait_for(stand_in, "1[3].pbs1", "R")
    compare_all(stand_in, recorded("20", "qstat -t -f -F json '70[].pbs1'", nth=1))
    for path in go[2:]:
        path.touch()
    wait_for(stand_in, "1[].pbs1", "F")
    compare_all(stand_in, recorded("21", "qstat -xt -f -F json '70[].pbs1'"))


def compare_all(stand_in: StandIn, exchange: Exchange) -> None:
    ours = shown(stand_in, "1[].pbs1")
    theirs = real(exchange)
    assert list(ours) == [id.replace("70[", "1[") for id in theirs]
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        same(mine, other)


def test_without_history_a_subjob_that_ended_is_shown_as_it_was(stand_in: StandIn, home: Path) -> None:
    stand_in.set(history=False)
    command = ["/bin/sh", "-c", "test $PBS_ARRAY_INDEX = 0 && exit 3; sleep 12"]
    stand_in.run("qsub", "-N", "hoffarr2", "-J", "0-2", "--", *command, cwd=home)

    def ask() -> dict[str, dict[str, Any]]:
        told = json.loads(stand_in.run("qstat", "-t", "-f", "-F", "json", "1[].pbs1").stdout)
        return dict(told["Jobs"])

    wait_until(lambda: ask()["1[0].pbs1"]["job_state"] == "X", "the first to end")
    said = recorded("30", "qsub -N hoffarr2")
    theirs = json.loads(said.out.split("\n", 1)[1])["Jobs"]
    for mine, other in zip(ask().values(), theirs.values(), strict=True):
        same(mine, other)


def test_deleting_an_array_leaves_what_it_left(stand_in: StandIn, home: Path) -> None:
    """Subjob 0 is deleted while it runs, 3 before it starts, then the rest with the array."""
    stand_in.set(ncpus=2)
    stand_in.run("qsub", "-J", "0-3", "-N", "delarr", "-l", "select=1:ncpus=1", "--", "/bin/sleep", "100", cwd=home)
    wait_for(stand_in, "1[1].pbs1", "R")
    for step, until in ((["1[0].pbs1"], ("1[2].pbs1", "R")), (["1[3].pbs1"], ("1[3].pbs1", "X"))):
        assert stand_in.run("qdel", *step).returncode == 0
        wait_for(stand_in, *until)
    # An unknown id beside it is not even said: the real one ended with 0 here.
    stand_in.run("qdel", "1[].pbs1")
    wait_for(stand_in, "1[].pbs1", "F")
    said = recorded("40", "qdel '72[].pbs1' 99999.pbs1")
    theirs = status._text_jobs(said.out)
    for mine, other in zip(shown(stand_in, "1[].pbs1").values(), theirs.values(), strict=True):
        for name in ("job_state", "substate", "Exit_status", "array_index"):
            assert str(mine.get(name)) == str(other.get(name)), name


def asked(recording: str, *beginnings: str) -> list[Any]:
    """Simple commands of a recording that were refused, by how they begin."""
    return [
        pytest.param(one, id=f"{recording}-{one.command[:60]}")
        for one in exchanges()
        if one.recording == recording
        and one.code
        and one.command.startswith(beginnings)
        # Others ask for jobs that are not here.
        and not re.search(r"[;|$]|53.pbs1|\b70\b", one.command)
    ]


def compare(stand_in: StandIn, one: Exchange, home: Path) -> None:
    said = stand_in.run(*shlex.split(one.command), cwd=home)
    clock = re.compile(r'(?<="timestamp":\t)\d+')
    assert (clock.sub("0", said.stdout), said.stderr, said.returncode) == (clock.sub("0", one.out), one.err, one.code)


@pytest.mark.parametrize(
    "one", asked("02", "qsub -l", "qsub -q nosuchq", "qsub -N", "qsub -J", "qsub -W", "qsub nosuch")
)
def test_qsub_refuses_in_the_same_words(one: Exchange, stand_in: StandIn, home: Path) -> None:
    compare(stand_in, one, home)


@pytest.mark.parametrize(
    "one",
    [*asked("70", "qstat 99", "qstat -f -F json 99", "qstat -x", "qstat -t", "qstat 53.other"), *asked("40", "qdel 9")],
)
def test_unknown_ids_are_answered_in_the_same_words(one: Exchange, stand_in: StandIn, home: Path) -> None:
    compare(stand_in, one, home)


@pytest.mark.parametrize("one", asked("90", "qsub job.sh", "qstat", "qdel", "qhold", "qselect"))
def test_a_server_that_is_down_is_told_in_the_same_words(one: Exchange, stand_in: StandIn, home: Path) -> None:
    stand_in.set(up=False)
    compare(stand_in, one, home)


def test_ended_jobs_are_answered_in_the_same_words(stand_in: StandIn, home: Path) -> None:
    stand_in.run("qsub", "-N", "fok", "--", "/bin/true", cwd=home)
    wait_for(stand_in, "1.pbs1", "F")
    stand_in.run("qsub", "-J", "0-1", "--", "/bin/true", cwd=home)
    wait_for(stand_in, "2[].pbs1", "F")
    for recording, command, id in (
        ("13", "qstat 53.pbs1", "1.pbs1"),
        ("13", "qstat -f 53.pbs1", "1.pbs1"),
        ("40", "qdel 71.pbs1", "1.pbs1"),
        ("12", "qhold 52.pbs1", "1.pbs1"),
        ("21", "qstat '70[].pbs1'", "2[].pbs1"),
        ("40", "qdel '72[].pbs1'", "2[].pbs1"),
    ):
        theirs = [one for one in exchanges() if one.recording == recording and one.command == command and one.code][-1]
        old = shlex.split(command)[-1]
        said = stand_in.run(*(word if word != old else id for word in shlex.split(command)))
        assert (said.stdout, said.stderr, said.returncode) == (theirs.out, theirs.err.replace(old, id), theirs.code)


def test_without_history_it_says_so(stand_in: StandIn, home: Path) -> None:
    stand_in.set(history=False)
    for command in ("qstat -x 8.pbs1", "qstat -x", "qstat -x -f -F json 8.pbs1", "qstat 8.pbs1", "qdel 8.pbs1"):
        compare(stand_in, recorded("30", command), home)


def test_it_prints_as_qstat_does() -> None:
    """JSON, and lines of `-f` folded in the same places."""
    said = recorded("13", "qstat -x -f -F json").out
    assert listing._printed(json.loads(said), 0) + "\n" == said
    folded = recorded("13", "qstat -x -f 53.pbs1").out
    lines = folded.replace("\n\t", "").splitlines()
    # qstat counts from elsewhere for what holds no commas.
    again = "".join(f"{listing._folded(line, 81)}\n" for line in lines if "Submit_arguments" not in line)
    assert again in folded.replace(
        "    Submit_arguments = -N fok -l select=1:ncpus=1:mem=100mb -l walltime=00:01:0\n\t0 job.sh\n", ""
    )


def test_with_several_ids_json_shows_the_first_alone_unless_asked_by_one_query(stand_in: StandIn, home: Path) -> None:
    said = recorded("82", "for i in 1 2 3 4 5")
    assert "n=5 rc=0 bytes=1305\n['344.pbs1']" in said.out
    ids = [stand_in.run("qsub", "-h", "job.sh", cwd=home).stdout.strip() for _ in range(2)]
    assert list(json.loads(stand_in.run("qstat", "-f", "-F", "json", *ids).stdout)["Jobs"]) == ids[:1]
    assert list(json.loads(stand_in.run("qstat", "-E", "-f", "-F", "json", *ids, "99.pbs1").stdout)["Jobs"]) == ids


def test_a_job_finds_the_variables_it_found(stand_in: StandIn, home: Path) -> None:
    theirs = set(re.findall(r"^(\w+)=", recorded("60", "export SECRETV").out, re.MULTILINE))
    (home / "env.sh").write_text("env -0 | sort -z | tr '\\0' '\\n'\n")
    stand_in.run("qsub", "-N", "e", "env.sh", cwd=home)
    wait_for(stand_in, "1.pbs1", "F")
    ours = set(re.findall(r"^(\w+)=", (home / "e.o1").read_text(), re.MULTILINE))
    # These came from the login shell's profile there.
    assert theirs - ours <= {"MANPATH", "PBS_O_HOME"}
