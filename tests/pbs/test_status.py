"""What qstat answered, as recorded from a real server, and what is made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from hsm_core.pbs import status, text
from hsm_core.pbs.status import Dialect, Form, Phase, State
from hsm_core.sources.hpc import states
from tests.pbs.recordings import Exchange, exchanges, recorded

# (job_state, substate, Exit_status, kind) of all jobs in the recordings. Kind: of a subjob, whether the record is its
# own; other ways to be than these were not seen.
MEANINGS: dict[tuple[str, int, int | None, str], State] = {
    ("Q", 10, None, "shadow"): State(Phase.PENDING),
    ("Q", 10, 1, "shadow"): State(Phase.PENDING),
    ("H", 20, None, "job"): State(Phase.HELD),
    ("H", 22, None, "job"): State(Phase.PENDING),
    ("R", 42, None, "job"): State(Phase.RUNNING),
    ("R", 42, None, "subjob"): State(Phase.RUNNING),
    ("B", 70, None, "array"): State(Phase.RUNNING),
    ("B", 70, 0, "array"): State(Phase.RUNNING),
    ("B", 70, 1, "array"): State(Phase.RUNNING),
    ("F", 92, 0, "job"): State(Phase.COMPLETED, ended=True, exit_code=0),
    ("F", 92, 0, "subjob"): State(Phase.COMPLETED, ended=True, exit_code=0),
    ("X", 92, 0, "subjob"): State(Phase.COMPLETED, ended=True, exit_code=0),
    ("F", 92, 0, "array"): State(Phase.COMPLETED, ended=True),
    ("F", 92, None, "job"): State(Phase.CANCELLED, ended=True),
    ("F", 93, 1, "subjob"): State(Phase.FAILED, ended=True, exit_code=1),
    ("X", 93, 1, "subjob"): State(Phase.FAILED, ended=True, exit_code=1),
    ("F", 93, 2, "subjob"): State(Phase.FAILED, ended=True, exit_code=2),
    ("F", 93, 3, "subjob"): State(Phase.FAILED, ended=True, exit_code=3),
    ("F", 93, 3, "job"): State(Phase.FAILED, ended=True, exit_code=3),
    ("F", 93, 139, "job"): State(Phase.FAILED, ended=True, exit_code=139),
    ("F", 93, 265, "job"): State(Phase.FAILED, ended=True, signal=9),
    ("F", 93, -29, "job"): State(Phase.TIMEOUT, ended=True),
    ("F", 93, 1, "array"): State(Phase.FAILED, ended=True),
    ("F", 93, 2, "array"): State(Phase.FAILED, ended=True),
    ("F", 91, 271, "job"): State(Phase.CANCELLED, ended=True, signal=15),
    ("F", 91, 271, "subjob"): State(Phase.CANCELLED, ended=True, signal=15),
    ("X", 91, 271, "subjob"): State(Phase.CANCELLED, ended=True, signal=15),
    ("F", 91, 0, "job"): State(Phase.CANCELLED, ended=True, exit_code=0),
    ("F", 91, 265, "job"): State(Phase.CANCELLED, ended=True, signal=9),
    ("F", 91, None, "job"): State(Phase.CANCELLED, ended=True),
    ("F", 91, -4, "job"): State(Phase.NODE_FAIL, ended=True),
    ("F", 91, 1, "array"): State(Phase.CANCELLED, ended=True),
    ("F", 91, 1, "shadow"): State(Phase.UNKNOWN, ended=True),
    ("X", 70, 1, "shadow"): State(Phase.UNKNOWN, ended=True),
}


def jobs_in(exchange: Exchange) -> dict[str, status.Attributes]:
    """The jobs that an exchange shows with their attributes."""
    if '"Jobs"' in exchange.out:
        starts = [found.start() for found in re.finditer(r"^\{", exchange.out, re.MULTILINE)]
        documents = [json.JSONDecoder(strict=False).raw_decode(exchange.out, start)[0] for start in starts]
        return {native: shown for document in documents for native, shown in document.get("Jobs", {}).items()}
    jobs = status._text_jobs(re.sub(r'\n\t+"[^\n]*', "", exchange.out))  # pbsnodes' words behind those of qstat
    return {name: shown for name, shown in jobs.items() if re.fullmatch(r"\S+", name)}


def recorded_jobs() -> Iterator[tuple[Exchange, str, status.Attributes]]:
    for exchange in exchanges():
        for native, shown in jobs_in(exchange).items():
            # Of some subjobs, the field was taken away that tells whose record it is.
            complete = not re.search(r"\[\d", native) or "array" in exchange.command or "grep" not in exchange.command
            if "substate" in shown and complete:
                yield exchange, native, shown


def test_every_recorded_state_is_told_apart() -> None:
    seen = {}
    for exchange, native, shown in recorded_jobs():
        kind = "array" if "[]" in native else "job" if "[" not in native else "shadow"
        kind = "subjob" if kind == "shadow" and "array_id" in shown else kind
        exit_status = int(shown["Exit_status"]) if "Exit_status" in shown else None
        key = (str(shown["job_state"]), int(shown["substate"]), exit_status, kind)
        [state] = status.states({native: shown}).values()
        told = State(state.phase, state.ended, exit_code=state.exit_code, signal=state.signal)
        assert MEANINGS[key] == told, (exchange, native)
        seen[key] = state
    # Two are only in the output of a grep without the jobs' ids.
    assert set(MEANINGS) - set(seen) == {("F", 91, 0, "job"), ("F", 91, 265, "job")}


@pytest.mark.parametrize(
    ("job_state", "fields", "phase"),
    [
        ("T", {"substate": 1}, Phase.PENDING),
        ("W", {"substate": 30, "Execution_Time": "Mon Nov 23 23:37:00 2026"}, Phase.PENDING),
        ("Q", {"substate": 10, "run_count": 1}, Phase.REQUEUED),
        ("S", {"substate": 43}, Phase.RUNNING),
        ("U", {"substate": 42}, Phase.RUNNING),
        ("E", {"substate": 53, "Exit_status": 0}, Phase.RUNNING),
        ("M", {"substate": 94}, Phase.UNKNOWN),
        ("F", {"substate": 93, "Exit_status": -27}, Phase.OUT_OF_MEMORY),
        ("F", {"substate": 93, "Exit_status": -28}, Phase.TIMEOUT),
        ("F", {"substate": 93, "Exit_status": -1}, Phase.FAILED),
        ("F", {"substate": 91, "Exit_status": 0}, Phase.CANCELLED),
        ("?", {}, Phase.UNKNOWN),
    ],
)
def test_states_that_are_known_from_parts_of_recordings_or_the_source(
    job_state: str, fields: dict[str, object], phase: Phase
) -> None:
    assert status.states({"1.pbs1": {"job_state": job_state, **fields}})["1.pbs1"].phase is phase


@pytest.mark.parametrize("recording", ["13", "14", "15", "16", "17", "18", "19"])
def test_text_and_json_say_the_same(recording: str) -> None:
    [plain] = [one for one in exchanges() if one.recording == recording and re.match(r"qstat -x -f \d", one.command)]
    [as_json] = [
        one for one in exchanges() if one.recording == recording and one.command.startswith("qstat -x -f -F json")
    ]
    told = status.read(plain.answer, Dialect(Form.PLAIN))
    assert told == status.read(as_json.answer, Dialect())
    assert len(told) == 1


def test_lines_folded_or_not_say_the_same() -> None:
    """With variables that try to look like other lines."""
    said = recorded("86", "export BAD=").out
    wide, folded = said.split("======\n")[:2]
    jobs = status._text_jobs(wide)
    assert set(jobs) == {"400.pbs1"}
    assert jobs["400.pbs1"]["job_state"] == "H"
    assert (
        status.states(status._text_jobs(folded))
        == status.states(jobs)
        == {"400.pbs1": State(Phase.HELD, reason="held (u)")}
    )


def test_the_subjobs_of_an_array() -> None:
    during = status.read(recorded("20", "qstat -t -f -F json '70[].pbs1'", nth=1).answer, Dialect())
    assert {name: state.phase.name for name, state in during.items()} == {
        "70.pbs1": "RUNNING",
        "70.pbs1_0": "COMPLETED",
        "70.pbs1_1": "FAILED",
        "70.pbs1_2": "RUNNING",
        "70.pbs1_3": "RUNNING",
    }
    assert during["70.pbs1_3"].node == "pbs1"
    after = status.read(recorded("21", "qstat -xt -f -F json '70[].pbs1'").answer, Dialect())
    assert [after[f"70.pbs1_{index}"].exit_code for index in range(4)] == [0, 1, 2, 3]


def test_without_history_a_subjob_that_ended_does_not_get_the_exit_code_of_its_array() -> None:
    said = recorded("30", "qsub -N hoffarr2")
    document = said.out.split("\n", 1)[1]
    told = status.read(text.Answer(["qstat"], 0, document, said.err), Dialect())
    assert told["10.pbs1_0"] == State(Phase.UNKNOWN, ended=True, reason="Subjob finished")
    assert told["10.pbs1_1"].phase is Phase.RUNNING


def test_the_subjobs_of_a_held_array_are_held() -> None:
    array = {"job_state": "H", "substate": 20, "Hold_Types": "u"}
    told = status.states({"370[].pbs1": array, "370[1].pbs1": {"job_state": "Q", "substate": 10}})
    assert told["370.pbs1_1"].phase is Phase.HELD


@pytest.mark.parametrize("command", ["qstat -f -F json", "qstat -x -f -F json 53.pbs1"])
def test_a_server_that_is_away_says_nothing_of_jobs(command: str) -> None:
    """Its document is that of a server without jobs."""
    said = recorded("90", command)
    assert "Jobs" not in json.loads(said.out)
    assert status.simpler(said.answer, Dialect()) is None
    with pytest.raises(text.PbsError, match="cannot connect to server pbs1") as raised:
        status.read(said.answer, Dialect())
    assert raised.value.refusal is text.Refusal.UNAVAILABLE


def test_a_job_that_the_server_does_not_know_is_not_in_the_answer() -> None:
    assert status.read(recorded("70", "qstat -x -f -F json 99999.pbs1").answer, Dialect()) == {}
    # The others of the call are.
    assert set(status.read(recorded("70", "qstat -x -f -F json 53.pbs1 99999.pbs1").answer, Dialect())) == {"53.pbs1"}


def test_without_history_it_is_not_asked_for_again() -> None:
    said = recorded("30", "qstat -x -f -F json 8.pbs1")
    assert said.code == 0
    simpler = status.simpler(said.answer, Dialect())
    assert simpler == Dialect(history=False)
    assert status.command(["8.pbs1"], simpler) == ["qstat", "-t", "-E", "-f", "-F", "json", "8.pbs1"]


def test_a_qstat_that_does_not_know_an_option_is_asked_in_older_ways() -> None:
    refused = recorded("70", "qstat --nosuch").answer
    first = status.simpler(refused, Dialect())
    assert first == Dialect(Form.WIDE)
    second = status.simpler(refused, first)
    assert second == Dialect(Form.PLAIN)
    assert status.simpler(refused, second) is None
    assert status.command(["8.pbs1"], second) == ["qstat", "-x", "-t", "-f", "8.pbs1"]


def test_a_document_that_is_no_json_is_asked_for_as_text() -> None:
    """The released 23.06.06 does not quote what looks like a number, and leaves control characters as they are."""
    document = recorded("13", "qstat -x -f -F json").out
    readable = document.replace('"PBS_O_SYSTEM":	"Linux"', '"PBS_O_SYSTEM":	"tab\there\x01\x7f"')
    assert status.simpler(text.Answer(["qstat"], 0, readable, ""), Dialect()) is None
    for value in ("+5", ".5", "5.", "nan", '"unfinished'):
        broken = document.replace('"PBS_O_SYSTEM":	"Linux"', f'"PBS_O_SYSTEM":	{value}')
        assert broken != document
        assert status.simpler(text.Answer(["qstat"], 0, broken, ""), Dialect()) == Dialect(Form.WIDE)


def test_one_call_asks_for_all_jobs_and_for_an_array_once() -> None:
    asked = status.command(["70.pbs1_0", "70.pbs1_1", "53.pbs1"], Dialect())
    assert asked == ["qstat", "-x", "-t", "-E", "-f", "-F", "json", "53.pbs1", "70[].pbs1"]


def test_a_subjob_that_is_not_shown_is_not_unknown_while_its_array_lives() -> None:
    running, ended = State(Phase.RUNNING), State(Phase.COMPLETED, ended=True)
    hidden = status.of("70.pbs1_3", {"70.pbs1": running})
    assert hidden is not None
    assert (hidden.phase, hidden.ended) == (Phase.UNKNOWN, False)
    assert status.of("70.pbs1_3", {"70.pbs1": ended}) is None
    assert status.of("70.pbs1_3", {"70.pbs1": ended, "70.pbs1_3": running}) is running
    assert status.of("71.pbs1", {"70.pbs1": running}) is None


def test_a_job_may_be_named_without_its_server() -> None:
    running = State(Phase.RUNNING)
    assert status.of("70_3", {"70.pbs1_3": running}) is running
    assert status.of("70.pbs2_3", {"70.pbs1_3": running}) is None


@pytest.mark.parametrize(
    ("form", "out"), [(Form.WIDE, "Welcome to the cluster\n"), (Form.PLAIN, ""), (Form.PLAIN, "Welcome\n")]
)
def test_an_answer_that_is_none_says_nothing_of_jobs(form: Form, out: str) -> None:
    with pytest.raises(text.PbsError, match="can't be understood"):
        status.read(text.Answer(["qstat"], 0, out, ""), Dialect(form))


def test_words_before_an_answer_are_not_in_it() -> None:
    said = recorded("13", "qstat -x -f 53.pbs1").out
    told = status.read(text.Answer(["qstat"], 0, f"Welcome to the cluster\n{said}", ""), Dialect(Form.PLAIN))
    assert told["53.pbs1"].phase is Phase.COMPLETED


def test_the_phases_mean_what_they_mean_to_sources() -> None:
    meant = {phase: states.Phase[phase.name] for phase in Phase}
    assert set(states.Phase) - set(meant.values()) == {states.Phase.PREEMPTED}
    for exchange, native, shown in recorded_jobs():
        [state] = status.states({native: shown}).values()
        assert state.phase is Phase.UNKNOWN or state.ended == meant[state.phase].ended, exchange


def test_the_peak_of_memory_is_known_of_what_ended() -> None:
    told = status.read(recorded("13", "qstat -x -f -F json").answer, Dialect())
    assert told["53.pbs1"].peak == 3120 / 1024
    # Of one that was not looked at while it ran, there are 0kb.
    assert status.read(recorded("14", "qstat -x -f -F json").answer, Dialect())["54.pbs1"].peak is None


def test_the_release_shows_all_jobs_of_one_call() -> None:
    said = recorded("85", "/opt/pbs-23.06.06/bin/qstat -f -F json $(cat ids.txt)")
    assert set(status.read(said.answer, Dialect())) == {"387.pbs1", "388.pbs1", "389.pbs1"}
