"""What is asked of qsub, and the script of a job."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from submitit.core.utils import JobPaths

from hsm_core.pbs.script import Options, options, qsub_command, script_text, seconds, select
from hsm_core.sources.hpc import translation
from hsm_core.sources.hpc.resources import Resources

SCRIPT = Path("/shared/a b/.submission_file_1.sh")
END = ["-o", "/dev/null", "-e", "/dev/null", "--", "/bin/bash", str(SCRIPT)]


def test_the_options_become_arguments() -> None:
    asked = Options(
        job_name="train",
        queue="gpu",
        account="p1",
        project="ml",
        walltime="1:30:00",
        nodes=2,
        tasks_per_node=2,
        cpus_per_task=4,
        gpus_per_node=2,
        mem=1536,
        array_parallelism=5,
        rerunnable=False,
        dependency="afterok:12.pbs1",
        extra=["-l software=x", "-W group_list='my group'"],
    )
    assert qsub_command(asked, SCRIPT, 20) == [
        *["qsub", "-N", "train", "-r", "n", "-q", "gpu", "-A", "p1", "-P", "ml"],
        *["-l", "select=2:ncpus=8:mpiprocs=2:ompthreads=4:mem=1536mb:ngpus=2", "-l", "place=scatter"],
        *["-l", "walltime=5400", "-W", "depend=afterok:12.pbs1", "-J", "0-19%5"],
        *["-l", "software=x", "-W", "group_list=my group", *END],
    ]


def test_little_is_asked_by_default() -> None:
    expected = ["qsub", "-N", "submitit", "-r", "y", "-l", "select=1:ncpus=1", "-l", "walltime=300", *END]
    assert qsub_command(Options(), SCRIPT) == expected
    assert "-l" not in qsub_command(Options(walltime=None), SCRIPT)[7:]


@pytest.mark.parametrize(("count", "limit", "array"), [(1, 1, None), (2, None, "0-1"), (3, 2, "0-2%2"), (3, 3, "0-2")])
def test_one_element_is_no_array(count: int, limit: int | None, array: str | None) -> None:
    command = qsub_command(Options(array_parallelism=limit), SCRIPT, count)
    assert (command[command.index("-J") + 1] if "-J" in command else None) == array


def test_chunks_can_be_given_as_pbs_has_them() -> None:
    assert select(Options(select="1:ncpus=2+3:ncpus=1", nodes=4)) == "1:ncpus=2+3:ncpus=1"
    assert select(Options(mem="4gb")) == "1:ncpus=1:mem=4gb"


def test_what_sources_ask_for_is_taken() -> None:
    asked = Resources(
        nodes=2, ntasks_per_node=2, cpus_per_task=4, mem=2048, queue="q", account="a", walltime=90, exclusive=True
    )
    further = replace(asked, extra=(("W", "group_list=my group"), ("m", "n")))
    command = qsub_command(options(translation.pbs(further)), SCRIPT, 2)
    assert command[: command.index("-o")] == [
        *["qsub", "-N", "submitit", "-r", "y", "-q", "q", "-A", "a"],
        *["-l", "select=2:ncpus=8:mpiprocs=2:mem=2048mb", "-l", "place=scatter:exclhost", "-l", "walltime=90"],
        *["-J", "0-1", "-W", "group_list=my group", "-m", "n"],
    ]


@pytest.mark.parametrize(("text", "value"), [(90, 90), ("90", 90), ("1:30", 90), ("100:00:01", 360001)])
def test_times(text: int | str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"job_name": "a b"}, "job_name 'a b' must have no spaces"),
        ({"job_name": "a/b"}, "job_name"),
        ({"job_name": ""}, "job_name"),
        ({"walltime": "soon"}, "walltime 'soon' is neither"),
        ({"walltime": 0}, "at least 1 second"),
        ({"nodes": 0}, "nodes must be a whole number of at least 1"),
        ({"array_parallelism": "4"}, "array_parallelism must be a whole number"),
        ({"mem": "lots"}, "mem 'lots'"),
        ({"select": "1:ncpus=1", "mem": 4, "cpus_per_task": 2}, "cpus_per_task and mem can't be given beside it"),
        ({"environment": {"A B": "1"}}, "'A B' is no name of a variable"),
        ({"setup": "module load x"}, "setup is a list of lines"),
        ({"extra": ["-l 'x"]}, "No closing quotation"),
    ],
)
def test_what_pbs_could_not_take_is_refused(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        options(parameters)


def test_a_misspelt_parameter_is_refused_with_a_list_of_all() -> None:
    with pytest.raises(ValueError, match=r"'quue'; did you mean queue\?\nValid parameters are:\n") as raised:
        options({"quue": "gpu"})
    assert "\n  - cpus_per_task (default: None)\n" in str(raised.value)


HOSTILE = ["plain", "a b", "a:b,c", "it's", '"; touch x; "', "$(touch x)", "%j/%t", "%A-%a", "new\nline", "-o", "é"]


@pytest.mark.parametrize(
    ("name", "jobid", "index", "element"),
    [
        *((name, "7.pbs1", None, "7.pbs1") for name in HOSTILE if "%a" not in name),
        *((name, "7[12].pbs1", "12", "7.pbs1_12") for name in HOSTILE),
    ],
)
def test_the_script_logs_where_the_job_is_looked_for(
    name: str, jobid: str, index: str | None, element: str, tmp_path: Path
) -> None:
    folder, workdir = tmp_path / name, tmp_path / "work"
    workdir.mkdir()
    script = tmp_path / "script.sh"
    variables = {"TEXT": """it's "x" \\ $(touch x) `touch x` é\n2"""}
    setup = ['echo "job $PBS_JOBID in $(basename "$PWD")"']
    command = "/bin/sh -c 'printf %s \"$TEXT\"; echo lost >&2; exit 3'"
    script.write_text(script_text(Options(setup=setup, environment=variables), command, folder, script))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PBS_JOBID": jobid, "PBS_O_WORKDIR": str(workdir)}
    environ |= {} if index is None else {"PBS_ARRAY_INDEX": index}
    done = subprocess.run(["/bin/bash", str(script)], env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    paths = JobPaths(folder, job_id=element, task_id=0)
    assert paths.stdout.read_text() == f"job {jobid} in work\n{variables['TEXT']}"
    assert paths.stderr.read_text().endswith("lost\n")
    assert not list(tmp_path.rglob("x"))


def test_errors_can_go_with_the_output(tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(script_text(Options(stderr_to_stdout=True), "/bin/sh -c 'echo E >&2'", tmp_path, script))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PBS_JOBID": "7.pbs1", "PBS_O_WORKDIR": str(tmp_path)}
    subprocess.run(["/bin/bash", str(script)], env=environ, check=True)
    paths = JobPaths(tmp_path, job_id="7.pbs1", task_id=0)
    assert paths.stdout.read_text() == "E\n"
    assert not paths.stderr.exists()
