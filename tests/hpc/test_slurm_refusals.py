"""What Slurm's commands say when they refuse, each sorted by what is to be done about it."""

from __future__ import annotations

import pytest

from hsm_core.sources.hpc.slurm_refusals import (
    Refusal,
    question_refused,
    refusal_words,
    submission_refused,
)
from tests.hpc.recordings import TESTBED, answer, answers


def recorded_refusals(*names: str) -> list[tuple[str, int | None, str]]:
    found = [one for name in names for one in answers(TESTBED / name) if one.command.startswith("sbatch ")]
    return [(one.command, one.code, one.err) for one in found if one.code != 0]


@pytest.mark.parametrize(("command", "code", "err"), recorded_refusals("02_sbatch_errors.txt"))
def test_what_a_real_sbatch_will_never_take(command: str, code: int, err: str) -> None:
    expected = Refusal.UNAVAILABLE if "--clusters" in command else Refusal.REJECTED
    assert submission_refused(code, err) is expected


def test_a_partition_that_takes_no_jobs_for_a_while() -> None:
    refused = answer(TESTBED / "02_sbatch_errors.txt", "scontrol update PartitionName=low State=INACTIVE; sbatch")
    assert submission_refused(refused.code, refused.err) is Refusal.UNAVAILABLE


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("sbatch --array=0-9 job.sh", Refusal.OVER_LIMIT),
        ("for i in 1 2 3 4; do", Refusal.OVER_LIMIT),
        ("for i in 1 2 3; do", Refusal.OVER_LIMIT),
        ("sbatch --time=60 job.sh", Refusal.REJECTED),
    ],
)
def test_limits_that_pass_and_limits_that_do_not(command: str, expected: Refusal) -> None:
    found = [one for one in answers(TESTBED / "03_sbatch_limits.txt") if one.command.startswith(command) and one.code]
    assert found
    assert {submission_refused(one.code, one.err) for one in found} == {expected}


def test_an_sbatch_that_waits_for_room_and_is_killed() -> None:
    killed = answer(TESTBED / "04_full.txt", "sbatch --array=0-19")
    assert killed.code is None
    assert submission_refused(killed.code, killed.err) is Refusal.AMBIGUOUS
    refused = answer(TESTBED / "04_full.txt", "sbatch --array=0-101")
    assert submission_refused(refused.code, refused.err) is Refusal.REJECTED


def test_a_controller_that_is_gone_and_one_that_hangs() -> None:
    down = TESTBED / "70_controller_down.txt"
    gone, hangs = (one for one in answers(down) if one.command.startswith("sbatch") and one.code)
    assert submission_refused(gone.code, gone.err) is Refusal.UNAVAILABLE
    assert submission_refused(hangs.code, hangs.err) is Refusal.AMBIGUOUS
    asked = [one for one in answers(down) if one.command.startswith(("squeue", "scontrol show job", "scancel"))]
    refused = [question_refused(one.code, one.err) for one in asked if one.code and "Invalid job id" not in one.err]
    assert len(refused) >= 8
    assert set(refused) == {Refusal.UNAVAILABLE}


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        # Reasons of slurm_errno.c that no testbed gives.
        ("Access/permission denied", Refusal.REJECTED),
        ("User's group not permitted to use this partition", Refusal.REJECTED),
        ("More processors requested than permitted", Refusal.REJECTED),
        ("Requested time limit is invalid (missing or exceeds some limit)", Refusal.REJECTED),
        ("Invalid wckey specification", Refusal.REJECTED),
        ("Unspecified error", Refusal.REJECTED),
        ("Invalid job array specification", Refusal.REJECTED),
        ("MaxJobCount limit reached", Refusal.OVER_LIMIT),
        ("Rate limit exceeded, please retry momentarily", Refusal.OVER_LIMIT),
        ("Resource temporarily unavailable", Refusal.OVER_LIMIT),
        ("Unable to contact slurm controller (connect failure)", Refusal.UNAVAILABLE),
        ("Slurm backup controller in standby mode", Refusal.UNAVAILABLE),
        ("Protocol authentication error", Refusal.UNAVAILABLE),
        ("Connection timed out establishing", Refusal.UNAVAILABLE),
        ("Connection refused", Refusal.UNAVAILABLE),
        ("Requested reservation not usable now", Refusal.UNAVAILABLE),
        ("I/O error writing script/environment to file", Refusal.UNAVAILABLE),
        ("Unable to contact slurm controller (send failure)", Refusal.AMBIGUOUS),
        ("Unable to contact slurm controller (receive failure)", Refusal.AMBIGUOUS),
        ("Socket timed out on send/recv operation", Refusal.AMBIGUOUS),
        ("Zero Bytes were transmitted or received", Refusal.AMBIGUOUS),
        ("Connection timed out reading", Refusal.AMBIGUOUS),
        ("Connection reset by peer", Refusal.AMBIGUOUS),
        ("Transport endpoint is not connected", Refusal.AMBIGUOUS),
    ],
)
def test_reasons_of_other_versions(reason: str, expected: Refusal) -> None:
    assert submission_refused(1, f"sbatch: error: Batch job submission failed: {reason}\n") is expected


@pytest.mark.parametrize(
    ("code", "err", "expected"),
    [
        (1, "sbatch: fatal: Could not establish a configuration source\n", Refusal.UNAVAILABLE),
        (1, "sbatch: error: Munge encode failed: Failed to access \"/run/munge/munge.socket\"\n", Refusal.UNAVAILABLE),
        (1, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n", Refusal.REJECTED),
        (1, "sbatch: error: Job aborted, your project ran out of CPU quota.\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)\n", Refusal.REJECTED),
        (1, "sbatch: error: AssocGrpSubmitJobsLimit\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)\n", Refusal.OVER_LIMIT),
        (1, "sbatch: error: QOSMaxNodePerJobLimit\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)\n", Refusal.REJECTED),
        (-9, "", Refusal.AMBIGUOUS),
        (None, "sbatch: error: Batch job submission failed: Invalid partition name specified\n", Refusal.AMBIGUOUS),
        (1, "the site's wrapper of sbatch has a bad day\n", Refusal.AMBIGUOUS),
        (3, "", Refusal.AMBIGUOUS),
    ],
)  # fmt: skip
def test_other_ends_of_sbatch(code: int | None, err: str, expected: Refusal) -> None:
    assert submission_refused(code, err) is expected


@pytest.mark.parametrize(
    ("name", "program", "words", "expected"),
    [
        ("30_unknown_ids.txt", "squeue", "slurm_load_jobs error", Refusal.UNKNOWN_ID),
        ("30_unknown_ids.txt", "scontrol show job", "slurm_load_jobs error", Refusal.UNKNOWN_ID),
        ("30_unknown_ids.txt", "scontrol requeue", "for job", Refusal.UNKNOWN_ID),
        ("30_unknown_ids.txt", "sacct", "Invalid field", Refusal.REJECTED),
        ("40_scancel.txt", "scancel -v", "Kill job error", Refusal.FINISHED),
        ("40_scancel.txt", "setpriv", "Kill job error", Refusal.REJECTED),
        ("60_no_accounting.txt", "sacct", "storage", Refusal.NO_ACCOUNTING),
    ],
)
def test_questions_that_a_real_slurm_refuses(name: str, program: str, words: str, expected: Refusal) -> None:
    asked = (one for one in answers(TESTBED / name) if one.command.startswith(program))
    refused = next(one for one in asked if words in one.err)
    assert question_refused(refused.code, refused.err) is expected


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (None, ""),
        (-9, ""),
        (1, "slurm_load_jobs error: Zero Bytes were transmitted or received\n"),
        (1, "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host\n"),
        (1, "words that nobody knows\n"),
        (0, "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)\n"),
    ],
)
def test_what_is_not_understood_says_nothing_of_any_job(code: int | None, err: str) -> None:
    assert question_refused(code, err) is Refusal.UNAVAILABLE


@pytest.mark.parametrize(
    ("err", "words"),
    [
        ("sbatch: error: invalid partition specified: nosuch\n"
         "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
         "invalid partition specified: nosuch; Batch job submission failed: Invalid partition name specified"),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: AssocMaxSubmitJobLimit\n", "AssocMaxSubmitJobLimit"),
        ("sbatch: unrecognized option '--x'\nTry \"sbatch --help\" for more information\n",
         "sbatch: unrecognized option '--x'"),
        ("\x1b[31mred\x1b[0m\n", "\\x1b[31mred\\x1b[0m"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(err: str, words: str) -> None:
    assert refusal_words(err) == words
