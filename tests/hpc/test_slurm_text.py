"""Slurm's commands and what a real Slurm answered to them."""

from __future__ import annotations

import re
import shlex

import pytest

from hsm_core.sources.hpc import slurm_text
from hsm_core.sources.hpc.resources import Resources
from hsm_core.sources.hpc.slurm_states import dropped
from hsm_core.sources.hpc.slurm_text import (
    SlurmConfig,
    accounting_command,
    cancel_command,
    environment,
    find_command,
    parse_accounting,
    parse_config,
    parse_found,
    parse_queue,
    parse_submitted,
    queue_command,
    submission_environment,
)
from hsm_core.sources.hpc.states import JobState, Phase, settled
from tests.hpc.recordings import OWN, TESTBED, Answer, answer, answers

STATES = OWN / "slurm_states.txt"
IDS = dict(re.findall(r"(\w+)=(\d+)", STATES.read_text("utf-8").splitlines()[1]))
"""ids of the recorded jobs, by their names"""


def jobs(found: dict[str, JobState]) -> dict[str, JobState]:
    """By the names of the jobs, `array_0` for an element of an array."""
    names = {id_: name for name, id_ in IDS.items()}
    return {re.sub(r"^\d+", lambda m: names[m[0]], element): state for element, state in found.items()}


def own(command: list[str]) -> Answer:
    return answer(STATES, shlex.join(command).replace("'", ""))


QUEUE = jobs(parse_queue(own(queue_command(IDS.values())).out))
ACCOUNTS = jobs(parse_accounting(own(accounting_command(IDS.values())).out))


@pytest.mark.parametrize(
    ("job", "phase", "reason", "node", "exit_code", "signal", "restarts"),
    [
        ("ok", Phase.COMPLETED, "", "n2", 0, None, 1),
        ("exit3", Phase.FAILED, "NonZeroExitCode", "n2", 3, None, 1),
        ("exit137", Phase.FAILED, "NonZeroExitCode", "n2", 137, None, 0),
        ("selfkill", Phase.FAILED, "JobLaunchFailure", "n2", None, 9, 0),
        ("badout", Phase.FAILED, "JobLaunchFailure", "n2", None, 53, 0),
        ("memory", Phase.FAILED, "JobLaunchFailure", "n3", None, 9, 0),
        ("limit", Phase.TIMEOUT, "TimeLimit", "n2", 143, None, 0),
        ("nodefail", Phase.NODE_FAIL, "NodeDown", "n1", None, None, 0),
        ("noderequeue", Phase.PENDING, "ReqNodeNotAvail, UnavailableNodes:n1", None, None, None, 1),
        ("cancelrunning", Phase.CANCELLED, "", "n3", None, 15, 0),
        ("cancelpending", Phase.CANCELLED, "", None, None, None, 0),
        ("held", Phase.HELD, "JobHeldUser", None, None, None, 0),
        ("neverdep", Phase.PENDING, "DependencyNeverSatisfied", None, None, None, 0),
        ("toobig", Phase.PENDING, "PartitionConfig", None, None, None, 0),
        ("victim", Phase.PREEMPTED, "", "n3", None, 15, 0),
        ("winner", Phase.RUNNING, "", "n3", None, None, 0),
        ("requeued", Phase.RUNNING, "", "n2", None, None, 1),
        ("suspended", Phase.RUNNING, "SUSPENDED", "n2", None, None, 0),
        ("array_0", Phase.COMPLETED, "", "n4", 0, None, 0),
        ("array_2", Phase.RUNNING, "", "n4", None, None, 0),
        ("array_4", Phase.PENDING, "JobArrayTaskLimit", None, None, None, 0),
    ],
)
def test_the_queue(
    job: str,
    phase: Phase,
    reason: str,
    node: str | None,
    exit_code: int | None,
    signal: int | None,
    restarts: int,
) -> None:
    found = QUEUE[job]
    assert (found.phase, found.reason, found.node) == (phase, reason, node)
    assert (found.exit_code, found.signal) == (exit_code, signal)
    assert found.restarts == restarts


def test_cancelled_elements_that_were_pending_leave_no_trace() -> None:
    assert {e for e in QUEUE if e.startswith("array_")} == {f"array_{i}" for i in range(6)}
    assert not {"array_6", "array_7"} & ACCOUNTS.keys()


@pytest.mark.parametrize(
    ("job", "phase", "reason", "exit_code", "signal"),
    [
        ("ok", Phase.COMPLETED, "", 0, None),
        ("exit3", Phase.FAILED, "", 3, None),
        ("exit137", Phase.FAILED, "", 9, None),
        ("selfkill", Phase.FAILED, "", None, 9),
        ("memory", Phase.OUT_OF_MEMORY, "", None, 9),
        ("limit", Phase.TIMEOUT, "", None, None),
        ("nodefail", Phase.NODE_FAIL, "", None, None),
        ("cancelrunning", Phase.CANCELLED, "by 0", None, None),
        ("cancelpending", Phase.CANCELLED, "by 0", None, None),
        ("victim", Phase.PREEMPTED, "", None, None),
        ("winner", Phase.RUNNING, "", None, None),
        ("array_1", Phase.COMPLETED, "", 0, None),
        ("array_5", Phase.PENDING, "", None, None),
    ],
)
def test_the_accounting(job: str, phase: Phase, reason: str, exit_code: int | None, signal: int | None) -> None:
    found = ACCOUNTS[job]
    assert (found.phase, found.reason, found.exit_code, found.signal) == (phase, reason, exit_code, signal)


def test_the_peak_is_that_of_the_steps() -> None:
    peak = ACCOUNTS["memory"].peak
    assert peak is not None
    assert peak > 100
    assert ACCOUNTS["held"].peak is None


def test_queue_and_accounting_together() -> None:
    found = settled([*QUEUE, "array_6", "gone"], QUEUE, ACCOUNTS)
    assert found["memory"].phase is Phase.OUT_OF_MEMORY
    assert found["memory"].peak == ACCOUNTS["memory"].peak
    assert found["exit137"].exit_code == 137
    assert found["array_6"] == JobState("array_6", Phase.UNKNOWN)
    assert {job: state.phase for job, state in found.items() if job not in ("memory", "array_6", "gone")} == {
        job: state.phase for job, state in QUEUE.items() if job != "memory"
    }


def test_an_answer_of_one_alone() -> None:
    ended, lives = JobState("1", Phase.FAILED, exit_code=3), JobState("1", Phase.RUNNING)
    assert settled(["1"], {}, {"1": ended}) == {"1": ended}
    assert settled(["1"], {"1": lives}, {}) == {"1": lives}
    assert settled(["1"], {"1": lives}, {"1": ended}) == {"1": lives}, "its last start is over, it goes on"
    forgotten = JobState("1", Phase.UNKNOWN, "accounting has it as running, the queue has not")
    assert settled(["1"], {}, {"1": lives}) == {"1": forgotten}


def test_what_is_unknown_neither_lives_nor_has_ended() -> None:
    assert [phase for phase in Phase if phase.lives == phase.ended] == [Phase.UNKNOWN]


def test_ids_that_nobody_knows() -> None:
    one, several = own(queue_command(["99999"])), own(queue_command(["99999", "99998"]))
    assert (one.code, parse_queue(one.out)) == (1, {})
    assert (several.code, parse_queue(several.out)) == (0, {})
    assert parse_accounting(own(accounting_command(["99999"])).out) == {}


def test_a_job_of_somebody_else_with_the_id_of_one_of_ours() -> None:
    text = own(queue_command(IDS.values())).out
    names = {IDS["ok"]: "ok", IDS["array"]: "array", IDS["exit3"]: "hsm-of-a-dead-controller"}
    found = jobs(parse_queue(text, names))
    assert "exit3" not in found
    assert found.keys() == QUEUE.keys() - {"exit3"}
    accounts = own(accounting_command(IDS.values())).out
    assert "exit3" not in jobs(parse_accounting(accounts, names))
    assert "exit3" in jobs(parse_accounting(accounts.replace("|exit3\n", "|allocation\n"), names))


# --- other recordings -----------------------------------------------------------------------------


def queue_of(recorded: Answer) -> dict[str, JobState]:
    """What squeue said as `%i|%T|%r|%N|%j|%k`, laid out in the columns that hsm asks for."""
    lines = []
    for row in (line.split("|", 5) for line in recorded.out.splitlines()):
        id_, state, reason, node, name, _ = row
        cells = (id_, state, "0", "0", node or "n/a", name, reason)
        lines.append("".join(f"{c:{w}.{w}}" for c, w in zip(cells, slurm_text._COLUMNS.values(), strict=True)))
    return parse_queue("\n".join(lines))


LISTINGS = [
    pytest.param(one, id=f"{path.stem}-{number}")
    for path in sorted(TESTBED.glob("*.txt"))
    for number, one in enumerate(answers(path))
    if re.search(r"^squeue .*-o '%i\|%T\|%r\|%N\|%j\|%k'$", one.command) and one.out
]


@pytest.mark.parametrize("recorded", LISTINGS)
def test_every_recorded_state_is_known(recorded: Answer) -> None:
    found = queue_of(recorded)
    for line in recorded.out.splitlines():
        id_, state, reason, *_ = line.split("|")
        elements = [one for one in found.values() if one.element == id_ or one.element.startswith(id_.split("[")[0])]
        assert elements, line
        assert Phase.UNKNOWN not in {one.phase for one in elements}, line
        if id_ in found and state not in ("COMPLETING", "SUSPENDED", "CONFIGURING"):
            held = "held" in reason.lower() and state == "PENDING"
            assert found[id_].phase.name == ("HELD" if held else state), line


def test_states_were_recorded() -> None:
    text = "\n".join(one.values[0].out for one in LISTINGS if isinstance(one.values[0], Answer))
    states = set(re.findall(r"\|([A-Z_]+)\|", text))
    assert states >= {"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "PREEMPTED", "SUSPENDED"}
    assert states >= {"OUT_OF_MEMORY", "TIMEOUT"}


def accounts_of(recorded: Answer) -> dict[str, JobState]:
    """What sacct said with other columns, in those that hsm asks for."""
    head, *rows = (line.split("|") for line in recorded.out.splitlines())
    cells = [dict(zip(head, row, strict=False)) for row in rows]
    return parse_accounting("\n".join("|".join(row.get(f, "") for f in slurm_text._FIELDS) for row in cells))


def test_memory_that_ran_out_in_a_cgroup() -> None:
    path = TESTBED / "25_out_of_memory_cgroup.txt"
    found = accounts_of(next(one for one in answers(path) if re.match(r"sacct -j \d", one.command)))
    names = {state.element: state.phase for state in found.values()}
    assert set(names.values()) == {Phase.OUT_OF_MEMORY}, "also where only a step ran out of it"
    raw = f"{'1':32}{'FAILED':20}{'0':12}{'253':12}{'n1':64}{'mem':80}NonZeroExitCode"
    assert parse_queue(raw)["1"] == JobState("1", Phase.OUT_OF_MEMORY, "NonZeroExitCode", "n1", None, 125)


@pytest.mark.parametrize(
    ("state", "phase", "reason"),
    [
        ("CONFIGURING", Phase.PENDING, "CONFIGURING"),
        ("REQUEUE_HOLD", Phase.HELD, "REQUEUE_HOLD"),
        ("SPECIAL_EXIT", Phase.HELD, "SPECIAL_EXIT"),
        ("REQUEUED", Phase.REQUEUED, ""),
        ("BOOT_FAIL", Phase.NODE_FAIL, "BOOT_FAIL"),
        ("DEADLINE", Phase.TIMEOUT, "DEADLINE"),
        ("STAGE_OUT", Phase.RUNNING, "STAGE_OUT"),
        ("REVOKED", Phase.UNKNOWN, "REVOKED"),
        ("SOMETHING_NEW", Phase.UNKNOWN, "SOMETHING_NEW"),
        ("CANCELLED by 1000", Phase.CANCELLED, "by 1000"),
        ("CANCELLED+", Phase.CANCELLED, "CANCELLED+"),
    ],
)
def test_states_that_no_testbed_gives(state: str, phase: Phase, reason: str) -> None:
    assert parse_accounting(f"7|{state}|0:0|n1|1G||job\n")["7"] == JobState("7", phase, reason, "n1")


@pytest.mark.parametrize(
    ("reason", "phase"),
    [
        ("JobHeldAdmin", Phase.HELD),
        ("JobHoldMaxRequeue", Phase.HELD),
        ("job requeued in held state", Phase.HELD),
        ("launch failed requeued held", Phase.HELD),
        ("QOSUsageThreshold", Phase.PENDING),
        ("BeginTime", Phase.PENDING),
    ],
)
def test_what_holds_a_job(reason: str, phase: Phase) -> None:
    raw = f"{'1':32}{'PENDING':20}{'2':12}{'0':12}{'n/a':64}{'job':80}{reason}"
    assert parse_queue(raw) == {"1": JobState("1", phase, reason, restarts=2)}


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12_[3-5]", ["12_3", "12_4", "12_5"]),
        ("12_[3,5-6,8%2]", ["12_3", "12_5", "12_6", "12_8"]),
        ("12_[0-6:3%1]", ["12_0", "12_3", "12_6"]),
        ("12_[3-5,10,2", ["12_3", "12_4", "12_5", "12_10"]),
        ("12_[3-5,10,...]", ["12_3", "12_4", "12_5", "12_10"]),
        ("12_[0-4000000000]", []),
        ("12+1", []),
        ("garbage", []),
    ],
)
def test_names_of_elements(name: str, elements: list[str]) -> None:
    assert list(parse_accounting(f"{name}|PENDING|0:0||1G||job\n")) == elements


@pytest.mark.parametrize(
    "text", ["", "Welcome to the cluster!\n\n*** maintenance tomorrow ***\n", "a|b|c\n", "|||||\n" * 3]
)
def test_what_else_a_sites_commands_print(text: str) -> None:
    assert parse_queue(text) == {}
    assert parse_accounting(text) == {}
    assert parse_found(text, "hsm-1") == []
    assert parse_submitted(text) is None
    assert parse_config(text) == SlurmConfig()


def test_a_banner_before_the_answer() -> None:
    text = own(queue_command(IDS.values())).out
    assert jobs(parse_queue("Welcome to the cluster!\n" + text)) == QUEUE


# --- looking for a job, submitting and cancelling -------------------------------------------------


@pytest.mark.parametrize(("token", "ids"), [("hsm-1", []), ("hsm-2", ["3"]), ("hsm-3", ["5"]), ("hsm-4", [])])
def test_finding_a_job_by_its_name(token: str, ids: list[str]) -> None:
    """Those that Slurm rejected after it had made them are no jobs: hsm-1, and one of two that are called hsm-2."""
    queued = answer(OWN / "slurm_found.txt", shlex.join(find_command(token, "root")).replace("'", ""))
    assert parse_found(queued.out, token) == ids


def test_a_name_that_two_jobs_have() -> None:
    text = "12|hsm-1|RUNNING|n1\n9_[0-3%2]|hsm-1|PENDING|\n9_4|hsm-1|CANCELLED|\n7|hsm-10|RUNNING|n1\n"
    assert parse_found(text, "hsm-1") == ["9", "12"]


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("Submitted batch job 123\n", "123"),
        ("Submitted batch job 123 on cluster west\n", "123"),
        ("123\n", "123"),
        ("123;west\n", "123"),
        ("Welcome, you have 5 jobs\nyour job 7 quota is 100\nSubmitted batch job 123\n", "123"),
        ("Submitted batch job 12x\n", None),
        ("sbatch: error: no\n", None),
    ],
)
def test_the_id_of_a_submitted_job(text: str, id_: str | None) -> None:
    assert parse_submitted(text) == id_


def test_what_a_real_sbatch_answers() -> None:
    taken = [
        one
        for one in answers(TESTBED / "01_sbatch_success.txt")
        if re.match(r"sbatch (?!--version|--test)", one.command)
    ]
    assert taken
    assert [parse_submitted(one.out) for one in taken] == [re.findall(r"\d+", one.out)[0] for one in taken]


def test_cancelling_takes_one_request_an_array() -> None:
    elements = ["7", "12_3", "12_4", "9", "12_5", "12_9", "7", "3_0"]
    assert cancel_command(elements) == ["scancel", "--quiet", "7", "9", "12_[3-5,9]", "3_[0]"]


@pytest.mark.parametrize("bad", ["", "-u", "1;id", "12_", "12_x", "1 2", "12_[3]", "--user=x", "1\n"])
def test_ids_are_numbers(bad: str) -> None:
    for command in (cancel_command, queue_command, accounting_command):
        with pytest.raises(ValueError, match="is no job of Slurm"):
            command([bad])


@pytest.mark.parametrize("bad", ["", "a b", "a,b", "a|b", "a\n"])
def test_names_are_words(bad: str) -> None:
    with pytest.raises(ValueError, match="is no name that hsm gives its jobs"):
        find_command(bad, "me")


def test_arrays_are_asked_for_whole() -> None:
    assert "--jobs=12,7" in queue_command(["12_3", "12_4", "7"])
    assert "--jobs=12,7" in accounting_command(["12_3", "12_4", "7"])


def test_the_users_own_settings_of_squeue_do_not_hide_jobs() -> None:
    own_settings = {"SQUEUE_STATES": "RUNNING", "SACCT_FORMAT": "JobID", "SLURM_CONF": "/etc/x", "LC_ALL": "de_DE"}
    found = environment(own_settings | {"PATH": "/bin"})
    assert found.keys() == {"SLURM_CONF", "PATH", "LC_ALL", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT"}
    assert found["LC_ALL"] == "C"


def test_the_users_own_settings_of_sbatch() -> None:
    environ = {"SBATCH_JOB_NAME": "mine", "SBATCH_ARRAY_INX": "0-9", "SBATCH_ACCOUNT": "p0", "SBATCH_QOS": "long"}
    found = submission_environment(environ | {"SLURM_CLUSTERS": "west"}, Resources(account="p1"))
    assert found.keys() == {"SBATCH_QOS", "SLURM_CLUSTERS", "LC_ALL", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT"}


def test_inside_of_a_job() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "SLURM_CONF": "/x", "SLURM_CLUSTERS": "west", "A": "b"}
    found = submission_environment(environ, Resources())
    assert found.keys() == {"SLURM_CONF", "A", "LC_ALL", "SLURM_BITSTR_LEN", "SLURM_TIME_FORMAT"}


# --- the configuration ----------------------------------------------------------------------------


def test_the_configuration_of_a_real_cluster() -> None:
    found = parse_config(answer(TESTBED / "50_config.txt", "scontrol show config").out)
    assert found == SlurmConfig(version="22.05.8", max_array_size=1001, max_job_count=10000, accounting=True)


def test_the_configuration_of_one_without_accounting() -> None:
    text = answer(TESTBED / "60_no_accounting.txt", "scontrol show config").out
    assert parse_config(text).accounting is False
    assert parse_config("MaxArraySize            = 0\nJobRequeue  = 0\n") == SlurmConfig(max_array_size=0)


def test_what_was_cancelled_while_it_waited() -> None:
    """As squeue of a real Slurm had it: job 2 was cancelled whole, of job 3 the element 1; nobody knows of job 4."""
    told = {
        "2": JobState("2", Phase.CANCELLED, "by 0"),
        "3_0": JobState("3_0", Phase.PENDING, "Resources"),
        "3_2": JobState("3_2", Phase.PENDING, "Resources"),
        "5_0": JobState("5_0", Phase.RUNNING),
    }
    assert dropped(["2_0", "3_1", "4_0", "5_1"], told) == {
        "2_0": JobState("2_0", Phase.CANCELLED, "by 0"),
        "3_1": JobState("3_1", Phase.CANCELLED),
    }
