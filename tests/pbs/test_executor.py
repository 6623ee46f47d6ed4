"""The plugin as submitit sees it, and functions that run as jobs: on the site's PBS, or the stand-in."""

from __future__ import annotations

import importlib.metadata
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core import plugins, utils
from submitit.core.job_environment import JobEnvironment

from hsm_core.pbs import PbsExecutor, PbsInfoWatcher, PbsJob, PbsJobEnvironment
from hsm_core.pbs.status import Phase
from hsm_core.testing import wait_until
from tests.pbs.jobs import Counter, end, fail, ignore_all, square, wait_at, whoami
from tests.testbed.pbs.bed import Bed

MakeExecutor = Callable[..., submitit.AutoExecutor]


@pytest.fixture
def make_executor(pbs: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeExecutor:
    """Makes executors with these parameters, in a folder with an awkward name."""
    for name in ("PATH", "HOME"):
        monkeypatch.setenv(name, pbs.environ[name])
    monkeypatch.setattr(PbsJob, "_results_timeout_s", 1)
    monkeypatch.chdir(tmp_path)

    def make(**parameters: Any) -> submitit.AutoExecutor:
        executor = submitit.AutoExecutor(tmp_path / "it's a:folder, $(yes)", cluster="pbs")
        executor.update_parameters(**{"timeout_min": 10, **parameters})
        return executor

    return make


def wait_for(job: submitit.Job[Any], phase: Phase) -> None:
    wait_until(lambda: PbsJob.watcher.state(job.job_id, "force").phase is phase, f"{job.job_id} to be {phase.name}")


def test_submitit_finds_the_plugin() -> None:
    assert plugins.get_executors()["pbs"] is PbsExecutor
    assert isinstance(plugins.get_job_environments()["pbs"], PbsJobEnvironment)
    names = {point.name: point.value for point in importlib.metadata.entry_points(group="submitit")}
    assert names == {"executor": "hsm_core.pbs:PbsExecutor", "job_environment": "hsm_core.pbs:PbsJobEnvironment"}


def test_nothing_is_activated_outside_of_a_job() -> None:
    """As submitit's own tests ask of each plugin."""
    environment = PbsJobEnvironment()
    assert not environment.activated()
    assert type(environment)._requeue is not JobEnvironment._requeue


def test_where_pbs_is_not_it_is_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PbsExecutor.affinity() == -1
    with pytest.raises(RuntimeError, match="not all on PATH"):
        PbsExecutor(tmp_path)
    # Grid Engine has these two.
    for name in ("qsub", "qstat"):
        (tmp_path / name).touch(mode=0o755)
    assert PbsExecutor.affinity() == -1


def test_shared_parameters_are_translated(make_executor: MakeExecutor) -> None:
    shared = {"name": "n", "mem_gb": 1.5, "cpus_per_task": 2, "gpus_per_node": 1, "nodes": 2, "tasks_per_node": 3}
    executor = make_executor(timeout_min=2, **shared, pbs_queue="workq", slurm_partition="ignored")
    assert executor._executor.parameters == {
        **{"job_name": "n", "walltime": 120, "mem": 1536, "cpus_per_task": 2, "gpus_per_node": 1, "nodes": 2},
        **{"tasks_per_node": 3, "queue": "workq"},
    }


def test_misspelt_parameters_are_refused(make_executor: MakeExecutor) -> None:
    with pytest.raises(NameError, match=r"Unknown argument 'quue' for executor 'pbs'.*Valid arguments.*queue"):
        make_executor(pbs_quue="workq")
    with pytest.raises(ValueError, match="did you mean queue"):
        make_executor()._executor.update_parameters(quue="workq")
    executor = make_executor(name="good")
    with pytest.raises(ValueError, match="must have no spaces"):
        executor.update_parameters(name="not good")
    assert executor._executor.parameters["job_name"] == "good"


def test_a_function_runs_as_a_job(make_executor: MakeExecutor, tmp_path: Path) -> None:
    variables = {"TEXT": """it's "x", {y} \\ $z"""}
    executor = make_executor(pbs_setup=["echo set up; SET=1"], pbs_environment=variables, mem_gb=0.1)
    job = executor.submit(whoami)
    found = job.result()
    assert found == {
        "job": job.job_id,
        "rank": (0, 0, 0, 1, 1),
        "hosts": 1,
        "directory": str(tmp_path),
        "text": variables["TEXT"],
    }
    assert "set up" in (job.stdout() or "")
    # Variables may be secrets.
    script = job.paths.submission_file.resolve()
    assert stat.S_IMODE(script.stat().st_mode) == 0o600


def test_an_array_is_one_submission_and_its_states_come_by_one_call(
    make_executor: MakeExecutor, watcher: PbsInfoWatcher
) -> None:
    executor = make_executor(pbs_array_parallelism=3)
    jobs = executor.map_array(square, range(20))
    assert len({job.job_id.rsplit("_", 1)[0] for job in jobs}) == 1
    assert [job.job_id.rsplit("_", 1)[1] for job in jobs] == [str(index) for index in range(20)]
    assert [job.result() for job in jobs] == [number * number for number in range(20)]
    wait_for(jobs[19], Phase.COMPLETED)
    watcher.clear()
    calls = watcher.num_calls
    watcher.update()
    assert {job.get_info(mode="cache")["State"] for job in jobs} == {"COMPLETED"}
    assert watcher.num_calls == calls + 1


def test_a_batch_of_one_is_a_plain_job(make_executor: MakeExecutor) -> None:
    [job] = make_executor().map_array(square, [7])
    assert "_" not in job.job_id
    assert job.result() == 49


def test_several_tasks_have_ranks(make_executor: MakeExecutor) -> None:
    job = make_executor(tasks_per_node=2).submit(whoami)
    assert [found["rank"] for found in job.results()] == [(0, 0, 0, 2, 1), (1, 1, 0, 2, 1)]


def test_an_exception_comes_back(make_executor: MakeExecutor) -> None:
    job = make_executor().submit(fail)
    with pytest.raises(utils.FailedJobError, match="this can't be divided"):
        job.result()
    wait_for(job, Phase.FAILED)
    assert job.get_info()["ExitCode"] == "1"


@pytest.mark.parametrize(("how", "field", "value"), [("exit", "ExitCode", "5"), ("kill", "Signal", "9")])
def test_a_death_is_no_success(how: str, field: str, value: str, make_executor: MakeExecutor) -> None:
    job = make_executor().submit(end, how)
    with pytest.raises(utils.UncompletedJobError, match=r"(?s)state: FAILED.*before the end"):
        job.result()
    assert job.get_info()[field] == value


def test_a_job_can_be_cancelled(make_executor: MakeExecutor, tmp_path: Path) -> None:
    started = tmp_path / "started"
    jobs = make_executor().map_array(wait_at, [str(started), str(tmp_path / "other")])
    wait_until(started.exists, "the job to start")
    for job in jobs:
        job.cancel()
        wait_for(job, Phase.CANCELLED)
        job.cancel()
    exception = jobs[0].exception()
    assert isinstance(exception, utils.UncompletedJobError)
    assert "CANCELLED" in str(exception)


def test_a_time_limit_ends_a_job(make_executor: MakeExecutor, tmp_path: Path) -> None:
    """A function that can't checkpoint is told half of the limit before, and says so."""
    job = make_executor(pbs_walltime=8).submit(wait_at, str(tmp_path / "started"))
    with pytest.raises(utils.UncompletedJobError, match="timed-out and not checkpointable"):
        job.result()


def test_a_job_that_hears_nothing_is_killed_at_its_limit(make_executor: MakeExecutor, tmp_path: Path) -> None:
    job = make_executor(pbs_walltime=3, pbs_signal_delay_s=0).submit(ignore_all, str(tmp_path / "started"))
    wait_for(job, Phase.TIMEOUT)
    with pytest.raises(utils.UncompletedJobError, match="state: TIMEOUT"):
        job.result()


def test_a_job_that_may_not_be_queued_again_says_where_its_checkpoint_is(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """PBS keeps qrerun for operators. The checkpoint goes on in a job of its own."""
    executor = make_executor()
    job = executor.submit(Counter(str(tmp_path / "started")))
    wait_until((tmp_path / "started").exists, "the job to start")
    assert isinstance(job, PbsJob)
    job._interrupt(timeout=True)
    with pytest.raises(utils.UncompletedJobError, match="could not be queued again: qrerun: Unauthorized Request"):
        job.result()
    rest = job.submission()
    assert executor.submit(rest.function, *rest.args, **rest.kwargs).result() == 2


def test_a_job_in_a_folder_named_after_its_id(make_executor: MakeExecutor, tmp_path: Path) -> None:
    executor = submitit.AutoExecutor(tmp_path / "%A" / "%j", cluster="pbs")
    jobs = executor.map_array(square, [2, 3])
    assert [job.result() for job in jobs] == [4, 9]
    assert jobs[1].paths.folder == tmp_path / jobs[1].job_id.rsplit("_", 1)[0] / jobs[1].job_id


def test_a_job_is_known_from_its_folder_and_id(make_executor: MakeExecutor) -> None:
    """What a later process does with the id that was written down."""
    job = make_executor().submit(square, 3)
    again: PbsJob[int] = PbsJob(job.paths.folder, job.job_id)
    assert again.result() == 9
    wait_for(again, Phase.COMPLETED)
