"""Ids, command lines, and what PBS's commands said when they refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.pbs import text
from hsm_core.pbs.text import Answer, PbsError, Refusal
from tests.pbs.recordings import exchanges, recorded

SERVERS = st.sampled_from(["", ".pbs1", ".head-01.cluster.local", ".2"])


@given(number=st.integers(0, 10**7), server=SERVERS, index=st.none() | st.integers(0, 9999))
def test_both_names_of_a_job_mean_each_other(number: int, server: str, index: int | None) -> None:
    native = f"{number}{server}" if index is None else f"{number}[{index}]{server}"
    element = text.element(native)
    assert text.native(element) == native
    assert "[" not in element
    assert text.whole(element) == (native if index is None else f"{number}[]{server}")
    assert index is None or text.member(f"{number}[]{server}", index) == element
    assert index is not None or text.member(native, 0) == element
    assert text.same(element, element)
    assert text.same(element, text.element(native.removesuffix(server) + ".another")) is (not server)


@pytest.mark.parametrize("wrong", ["", "pbs1", "12;rm -rf", "12 13", "12[a].x", "-W", "12.a b"])
def test_what_is_no_id_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no job id"):
        text.element(wrong)
    with pytest.raises(ValueError, match="is no name of a job"):
        text.native(wrong)


REFUSALS = {
    "02": Refusal.REJECTED,
    "90": Refusal.UNAVAILABLE,
    "qsub -q workq@nosuchhost job.sh": Refusal.UNAVAILABLE,
    "qsub -l select=1:ncpus=3 job.sh": Refusal.OVER_LIMIT,
    "qsub -l walltime=02:00:00 job.sh": Refusal.REJECTED,
    "qsub -J 0-9 job.sh": Refusal.REJECTED,
    "qdel 71.pbs1": Refusal.FINISHED,
    "qdel '72[0].pbs1'": Refusal.FINISHED,
    "qdel 99999.pbs1": Refusal.UNKNOWN_ID,
    "qdel 99999.otherhost": Refusal.REJECTED,
    "qdel '72[77].pbs1'": Refusal.REJECTED,
    "qstat 51.pbs1": Refusal.FINISHED,
    "qstat 99999": Refusal.UNKNOWN_ID,
    "qstat garbage": Refusal.REJECTED,
    "qhold -h s 52.pbs1": Refusal.NOT_ALLOWED,
}


@pytest.mark.parametrize("which", REFUSALS)
def test_refusals_are_sorted(which: str) -> None:
    """By command, or all of a recording that are not named themselves."""
    found = [
        one
        for one in exchanges()
        if one.code != 0
        and (one.command == which or (one.recording == which and one.command not in REFUSALS))
        and ";" not in one.command
        and one.command.split()[0] in ("qsub", "qstat", "qdel", "qhold", "qselect")
    ]
    assert found
    for one in found:
        assert text.refusal(one.answer) is REFUSALS[which], one


@pytest.mark.parametrize(
    "words",
    [
        "qsub: would exceed queue generic's per-user limit",
        "qsub: Maximum number of jobs for user user already in complex",
        "qsub: would exceed per-user limit on resource ncpus in queue workq",
    ],
)
def test_limits_on_how_much_is_queued_are_no_rejections(words: str) -> None:
    assert any(words in one.err for one in exchanges())
    assert text.refusal(Answer(["qsub"], 38, "", words)) is Refusal.OVER_LIMIT


def test_rerunning_is_for_operators() -> None:
    said = recorded("45", "qsub -N rerun --")
    assert text.refusal(Answer(["qrerun"], 159, "", said.err)) is Refusal.NOT_ALLOWED


def test_a_deletion_that_the_node_did_not_hear_can_be_tried_again() -> None:
    said = recorded("91", "qdel $(tail -1 id.txt)")
    assert text.refusal(Answer(["qdel"], 222, "", said.err)) is Refusal.UNAVAILABLE


def test_an_exit_code_without_words_is_understood() -> None:
    assert text.refusal(Answer(["qdel"], 153, "", "")) is Refusal.UNKNOWN_ID
    assert text.refusal(Answer(["qsub"], 162, "", "")) is Refusal.UNAVAILABLE
    assert text.refusal(Answer(["qstat"], 255, "", "")) is Refusal.UNAVAILABLE
    assert text.refusal(Answer(["qsub"], 99, "", "")) is Refusal.REJECTED


@pytest.mark.parametrize("code", [None, -11])
def test_a_qsub_that_did_not_end_by_itself_may_have_submitted(code: int | None) -> None:
    with pytest.raises(PbsError, match="look with qstat") as raised:
        text.submitted_id(Answer(["qsub"], code, "", ""))
    assert raised.value.refusal is Refusal.AMBIGUOUS
    assert text.refusal(Answer(["qstat"], code, "", "")) is Refusal.UNAVAILABLE


def test_the_error_quotes_pbs_without_its_usage() -> None:
    with pytest.raises(PbsError) as raised:
        text.submitted_id(recorded("02", "qsub -J 0-0 job.sh").answer)
    assert str(raised.value) == "PBS did not take the job: qsub: illegal -J value"


@pytest.mark.parametrize("recording", ["01", "20"])
def test_the_id_is_found_in_what_qsub_printed(recording: str) -> None:
    said = next(one for one in exchanges() if one.recording == recording and one.code == 0)
    words = "70[].pbs1\n" if recording == "20" else said.out
    banner = "Project 12345 has this many hours left:\n100\n"
    expected = "70[].pbs1" if recording == "20" else "1.pbs1"
    assert text.submitted_id(Answer(["qsub"], 0, banner + words, "warning: old queue\n")) == expected


def test_a_job_with_an_id_was_taken() -> None:
    """`-W block=true` ends with the job's exit code; whoever is killed in the meantime has printed the id before."""
    said = recorded("01", "qsub -W block=true")
    assert said.code == 3
    assert text.submitted_id(said.answer) == "6.pbs1"
    assert text.submitted_id(Answer(["qsub"], None, said.out, "")) == "6.pbs1"


@pytest.mark.parametrize("words", ["qsub: End of File", "qsub: Batch protocol error", "Connection timed out\nqsub: "])
def test_a_connection_that_broke_may_have_submitted(words: str) -> None:
    assert text.refusal(Answer(["qsub"], 7, "", words)) is Refusal.AMBIGUOUS
    assert text.refusal(Answer(["qstat"], 7, "", words)) is Refusal.UNAVAILABLE


@pytest.mark.parametrize("out", ["", "submitted\n", "1.pbs1\n2.pbs1\n"])
def test_a_success_without_one_id_may_have_submitted(out: str) -> None:
    with pytest.raises(PbsError, match="no job id that could be told") as raised:
        text.submitted_id(Answer(["qsub"], 0, out, ""))
    assert raised.value.refusal is Refusal.AMBIGUOUS


def test_a_name_for_a_token_fits_all_versions() -> None:
    names = {text.name_for(f"sweep_{i}") for i in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == text.NAME_LIMIT and name.startswith("hsm-") and name.isascii() for name in names)


def test_a_job_is_found_by_its_name() -> None:
    said = recorded("70", "qselect -x -N fok")
    assert text.find_command("fok") == said.command.split()
    assert text.found_ids(said.answer) == ["53.pbs1"]
    assert text.found_ids(recorded("70", "qselect -u user").answer) == []
    with pytest.raises(PbsError, match="cannot connect"):
        text.found_ids(recorded("90", "qselect").answer)
    # Printed by qselect.c, with exit code 0.
    no_history = Answer(["qselect", "-x"], 0, "", "qselect: PBS is not configured to maintain job history\n")
    assert text.found_ids(no_history) is None
    assert text.find_command("fok", history=False) == ["qselect", "-N", "fok"]
