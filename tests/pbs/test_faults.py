"""States and results of jobs when PBS does not help: the server away, no history, old clients, lost answers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core import utils

from hsm_core.pbs import PbsInfoWatcher, PbsJob, PbsSubmissionError, command, text
from hsm_core.pbs import watcher as watching
from hsm_core.pbs.status import Phase
from hsm_core.testing import wait_until
from tests.pbs.jobs import Counter, end, whoami
from tests.testbed.pbs.bed import StandIn


@pytest.fixture
def executor(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> submitit.AutoExecutor:
    for name in ("PATH", "HOME"):
        monkeypatch.setenv(name, stand_in.environ[name])
    monkeypatch.setattr(PbsJob, "_results_timeout_s", 1)
    made = submitit.AutoExecutor(tmp_path / "jobs", cluster="pbs")
    made.update_parameters(timeout_min=10)
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of PBS that were run."""
    made: list[list[str]] = []
    run = command.run

    def noted(given: list[str], *rest: Any) -> text.Answer:
        made.append(given)
        return run(given, *rest)

    monkeypatch.setattr(command, "run", noted)
    return made


def phase(job: submitit.Job[Any]) -> Phase:
    watcher: PbsInfoWatcher = PbsJob.watcher
    return watcher.state(job.job_id, "force").phase


def wait_for(job: submitit.Job[Any], *phases: Phase) -> None:
    wait_until(lambda: phase(job) in phases, f"{job.job_id} to be {phases}")


sleep = functools.partial(time.sleep, 600)
true = functools.partial(str, "done")
die = functools.partial(end, "kill")


def test_without_history_the_result_tells_what_became_of_a_job(
    stand_in: StandIn, executor: submitit.AutoExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.set(history=False)
    good, bad = executor.submit(true), executor.submit(die)
    wait_until(lambda: not stand_in.run("qselect").stdout, "both jobs to be forgotten")
    assert phase(good) is phase(bad) is Phase.UNKNOWN
    assert good.result() == "done"
    # It could be a server that has not all of its jobs back yet.
    assert not bad.done(force_check=True)
    # Time in which it does not answer says nothing.
    monkeypatch.setattr(watching, "GRACE", 1e-9)
    PbsJob.watcher.clear()
    assert not bad.done(force_check=True)
    stand_in.set(up=False)
    assert not bad.done(force_check=True)
    stand_in.set(up=True)
    wait_until(lambda: bad.done(force_check=True), "it to be given up")
    with pytest.raises(utils.UncompletedJobError, match="state: UNKNOWN"):
        bad.result()


def test_without_history_a_dead_subjob_is_done_while_its_array_lives(
    stand_in: StandIn, executor: submitit.AutoExecutor, calls: list[list[str]]
) -> None:
    stand_in.set(history=False)
    dead, alive = executor.submit_array([die, sleep])
    wait_until(lambda: dead.done(force_check=True), "the dead one to be noticed")
    assert phase(dead) is Phase.UNKNOWN
    assert phase(alive) is Phase.RUNNING
    with pytest.raises(utils.UncompletedJobError, match="state: UNKNOWN"):
        dead.result()
    # It is asked with -x once, and never again.
    asked = [given for given in calls if given[0] == "qstat"]
    assert ["-x" in given for given in asked] == [True] + [False] * (len(asked) - 1)


def test_a_server_that_is_away_changes_nothing(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    job = executor.submit(sleep)
    wait_for(job, Phase.RUNNING)
    stand_in.set(up=False)
    for _ in range(2):
        assert phase(job) is Phase.RUNNING
        assert not job.done(force_check=True)
    with pytest.raises(text.PbsError, match=r"could not be cancelled: Connection refused; Couldn't connect to cluster"):
        job.cancel()
    with pytest.raises(PbsSubmissionError, match="try again later") as raised:
        executor.submit(true)
    assert raised.value.refusal is text.Refusal.UNAVAILABLE
    stand_in.set(up=True)
    job.cancel()
    wait_for(job, Phase.CANCELLED)


def test_a_job_that_ends_while_the_server_is_away_is_done_by_its_result(
    stand_in: StandIn, executor: submitit.AutoExecutor
) -> None:
    job = executor.submit(true)
    stand_in.set(up=False)
    assert job.result() == "done"


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    stand_in: StandIn, executor: submitit.AutoExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = executor.submit(sleep)
    wait_for(job, Phase.RUNNING)
    monkeypatch.setattr(
        command, "ask", functools.partial(command.ask, call=functools.partial(command.run, deadline=0.3))
    )
    with stand_in.frozen():
        assert phase(job) is Phase.RUNNING


def test_a_submission_without_an_answer_is_found_by_its_name(
    stand_in: StandIn, executor: submitit.AutoExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = text.name_for("sweep 1, batch 7")
    executor.update_parameters(name=name)
    assert text.found_ids(command.run(text.find_command(name))) == []
    run = command.run
    with monkeypatch.context() as context:
        context.setattr(command, "run", lambda given: replace(run(given), code=None, out=""))
        with pytest.raises(PbsSubmissionError, match="did not answer in time") as raised:
            executor.map_array(str, [1, 2])
    assert raised.value.refusal is text.Refusal.AMBIGUOUS
    assert text.found_ids(command.run(text.find_command(name))) == ["1[].pbs1"]
    # What it needs is still there.
    assert len(list((tmp_path / "jobs").glob("*.pkl"))) == 2
    stand_in.set(history=False)
    assert text.found_ids(command.run(text.find_command(name))) is None


@pytest.mark.parametrize(
    ("settings", "parameters", "refusal", "words"),
    [
        ({}, {"pbs_queue": "nope"}, text.Refusal.REJECTED, "qsub: Unknown queue"),
        ({"max_walltime": 60}, {}, text.Refusal.REJECTED, "violates queue and/or server resource limits"),
        ({"max_array_size": 2}, {}, text.Refusal.REJECTED, "Array job exceeds"),
        ({"max_queued": 2}, {}, text.Refusal.OVER_LIMIT, "already in complex. Jobs must end before"),
    ],
)
def test_a_refused_submission_leaves_nothing_behind(
    settings: dict[str, Any],
    parameters: dict[str, Any],
    refusal: text.Refusal,
    words: str,
    stand_in: StandIn,
    executor: submitit.AutoExecutor,
    tmp_path: Path,
) -> None:
    stand_in.set(**settings)
    executor.update_parameters(**parameters)
    with pytest.raises(PbsSubmissionError, match=words) as raised:
        executor.map_array(str, range(3))
    assert raised.value.refusal is refusal
    assert isinstance(raised.value, utils.FailedSubmissionError)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_what_a_site_prints_before_the_id_is_no_id(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    stand_in.set(banner="You have 100 hours left.\n2 jobs are waiting\n")
    assert executor.submit(true).result() == "done"


@pytest.mark.parametrize(
    ("settings", "extra", "option"), [({"old": True}, "-v M=1", "-f"), ({"raw": True}, "-v M=nan", "-w")]
)
def test_other_versions_of_qstat_are_understood(
    settings: dict[str, Any],
    extra: str,
    option: str,
    stand_in: StandIn,
    executor: submitit.AutoExecutor,
    calls: list[list[str]],
) -> None:
    """One knows neither `-E` nor `-F`; the other prints JSON that is none, for the value of a variable."""
    stand_in.set(**settings)
    executor.update_parameters(pbs_extra=[extra])
    jobs = executor.map_array(str, range(3))
    for job in jobs:
        wait_for(job, Phase.COMPLETED)
    asked = [given for given in calls if given[0] == "qstat"]
    assert option in asked[-1]
    # What was learnt is kept.
    assert sum("json" in given for given in asked) == 1


def test_one_call_of_qstat_tells_of_all_jobs(
    stand_in: StandIn, executor: submitit.AutoExecutor, calls: list[list[str]]
) -> None:
    stand_in.set(scheduling=False)
    jobs = [executor.submit(true), *executor.map_array(str, range(4)), executor.submit(true)]
    del calls[:]
    assert {job.state for job in jobs} == {"PENDING"}
    assert len(calls) == 1
    assert calls[0][-3:] == ["1.pbs1", "2[].pbs1", "3.pbs1"]
    stand_in.set(scheduling=True)
    for job in jobs:
        wait_for(job, Phase.COMPLETED)
    del calls[:]
    # Of those that have ended, it is not asked again.
    assert all(job.done(force_check=True) for job in jobs)
    assert calls == []


def test_a_held_job_is_not_done(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    stand_in.set(scheduling=False)
    jobs = [executor.submit(true), *executor.map_array(str, range(2))]
    assert stand_in.run("qhold", "1.pbs1", "2[].pbs1").returncode == 0
    for job in jobs:
        assert phase(job) is Phase.HELD
        assert not job.done(force_check=True)
    stand_in.run("qrls", "1.pbs1", "2[].pbs1")
    assert {phase(job) for job in jobs} == {Phase.PENDING}


def test_why_a_job_waits_is_told(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    executor.update_parameters(cpus_per_task=99)
    job = executor.submit(true)
    wait_until(lambda: "Can Never Run" in job.get_info().get("Reason", ""), "the scheduler to say why")
    assert phase(job) is Phase.PENDING
    executor.update_parameters(cpus_per_task=1, pbs_dependency=f"afterok:{job.job_id}")
    other = executor.submit(true)
    assert phase(other) is Phase.PENDING
    assert other.get_info()["Reason"] == f"waits for afterok:{job.job_id}@pbs1"
    job.cancel()
    wait_for(other, Phase.CANCELLED)
    assert "can't be satisfied" in other.get_info()["Reason"]


def test_a_job_that_somebody_deleted_is_cancelled(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    job = executor.submit(sleep)
    wait_for(job, Phase.RUNNING)
    stand_in.run("qdel", job.job_id)
    with pytest.raises(utils.UncompletedJobError, match="state: CANCELLED"):
        job.result()


def test_a_preempted_job_goes_on_from_its_checkpoint(
    stand_in: StandIn, executor: submitit.AutoExecutor, tmp_path: Path
) -> None:
    job = executor.submit(Counter(str(tmp_path / "started")))
    wait_until((tmp_path / "started").exists, "the job to start")
    stand_in.set(scheduling=False, preempt=job.job_id)
    wait_for(job, Phase.REQUEUED)
    assert not job.done(force_check=True)
    stand_in.set(scheduling=True)
    assert job.result() == 2
    assert job.get_info()["Restarts"] == "1"


def test_at_its_time_limit_a_job_is_queued_again_where_it_may(
    stand_in: StandIn, executor: submitit.AutoExecutor, tmp_path: Path
) -> None:
    stand_in.set(operator=True)
    functions: list[Callable[[], Any]] = [Counter(str(tmp_path / "started")), true]
    job = executor.submit_array(functions)[0]
    wait_until((tmp_path / "started").exists, "the job to start")
    assert isinstance(job, PbsJob)
    job._interrupt(timeout=True)
    assert job.result() == 2


def test_tasks_on_several_nodes_have_ranks(stand_in: StandIn, executor: submitit.AutoExecutor) -> None:
    executor.update_parameters(nodes=2, tasks_per_node=2)
    ranks = [found["rank"] for found in executor.submit(whoami).results()]
    assert ranks == [(0, 0, 0, 4, 2), (1, 1, 0, 4, 2), (2, 0, 1, 4, 2), (3, 1, 1, 4, 2)]
