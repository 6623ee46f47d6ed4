"""Resources in the words of Slurm, as submitit writes them into a job script, and of PBS."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from hsm_core.sources.hpc.extra import Extra
from hsm_core.sources.hpc.resources import Resources, parse
from hsm_core.sources.hpc.translation import lacking, pbs, slurm


def script(resources: Resources) -> list[str]:
    """The lines of a job script that submitit makes, but for what it sets by itself."""
    text = _make_sbatch_string("run", "/shared", **slurm(resources))
    own = ("--error=", "--job-name=", "--open-mode=", "--output=", "--signal=", "--wckey=")
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    return [line for line in lines if not line.startswith(own)]


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("nodes=1:ntasks=4:mem=32GB:walltime=12:00:00",
         ["--mem=32768M", "--nodes=1", "--ntasks=4", "--time=720"]),
        ("nodes=4:ntasks-per-node=2:cpus-per-task=8:mem_per_cpu=2GB",
         ["--cpus-per-task=8", "--mem-per-cpu=2048M", "--nodes=4", "--ntasks-per-node=2"]),
        ("gpus=2:mem_per_gpu=8GB", ["--gpus-per-node=2", "--mem-per-gpu=8192M", "--nodes=1"]),
        ("gpus=a100:2", ["--gpus-per-node=a100:2", "--nodes=1"]),
        ("gpus=0", ["--nodes=1"]),
        ("gres=gpu:a100:2,shard:1", ["--gres=gpu:a100:2,shard:1", "--nodes=1"]),
        ("queue=gpu:account=p1:qos=long", ["--account=p1", "--nodes=1", "--partition=gpu", "--qos=long"]),
        ("exclusive", ["--exclusive", "--nodes=1"]),
        ("exclusive=user", ["--exclusive=user", "--nodes=1"]),
        ("exclusive=false", ["--nodes=1"]),
        ("constraint=[rack1|rack2]:nodelist=n1,n2:exclude=n3",
         ["--constraint='[rack1|rack2]'", "--exclude=n3", "--nodelist=n1,n2", "--nodes=1"]),
        ("tmp=1GB:reservation=course:licenses=matlab:1",
         ["--licenses=matlab:1", "--nodes=1", "--reservation=course", "--tmp=1024M"]),
        ("walltime=61s", ["--nodes=1", "--time=2"]),
        ({"extra": {"mail_type": ["END", "FAIL"], "hint": "x; touch /tmp/pwn", "contiguous": True, "nice": None}},
         ["--contiguous", "--hint='x; touch /tmp/pwn'", "--mail-type=END,FAIL", "--nodes=1"]),
    ],
)  # fmt: skip
def test_slurm(value: Any, lines: list[str]) -> None:
    assert script(parse(value)) == lines


def test_an_attempt_is_one_process_for_submitit() -> None:
    """It waits for as many results as `nodes` times `ntasks_per_node`, and srun would start as many processes."""
    parameters = slurm(parse("nodes=4:ntasks=16:ntasks_per_node=4"))
    assert parameters.keys() <= inspect.signature(_make_sbatch_string).parameters.keys()
    assert not parameters.keys() & {"nodes", "ntasks_per_node"}
    assert "srun" not in _make_sbatch_string("run", "/shared", **parameters)


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("nodes=1:ntasks=4:mem=32GB:walltime=12:00:00",
         {"select": "1:ncpus=4:mpiprocs=4:mem=32768mb", "walltime": 43200}),
        ("", {"select": "1:ncpus=1"}),
        ("nodes=4:ntasks=16:cpus_per_task=2", {"select": "4:ncpus=8:mpiprocs=4", "place": "scatter"}),
        ("cpus=8:mem_per_cpu=1GB:gpus=2", {"select": "1:ncpus=8:mem=8192mb:ngpus=2"}),
        ("gres=gpu:2:mem_per_gpu=1GB", {"select": "1:ncpus=1:mem=2048mb:ngpus=2"}),
        ("gpus=0", {"select": "1:ncpus=1"}),
        ("exclusive", {"select": "1:ncpus=1", "place": "exclhost"}),
        ("nodes=2:exclusive", {"select": "2:ncpus=1", "place": "scatter:exclhost"}),
        ("nodelist=n1.site", {"select": "1:ncpus=1:host=n1.site"}),
        ("queue=gpu:account=p1", {"select": "1:ncpus=1", "queue": "gpu", "account": "p1"}),
        ({"extra": {"W": "group_list=staff", "l": ["gpu_model=a100", "filesystems=home"], "p": 5, "Z": None}},
         {"select": "1:ncpus=1",
          "extra": ["-W group_list=staff", "-l gpu_model=a100", "-l filesystems=home", "-p 5"]}),
        ({"extra": {"W": "a='b c' -o /x"}},
         {"select": "1:ncpus=1", "extra": ["-W 'a='\"'\"'b c'\"'\"' -o /x'"]}),
        ({"extra": {"Y": True}}, {"select": "1:ncpus=1", "extra": ["-Y"]}),
    ],
)  # fmt: skip
def test_pbs(value: Any, parameters: dict[str, Any]) -> None:
    assert pbs(parse(value or {})) == {"walltime": None} | parameters


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("gpus=a100:2", "gpu_type", "PBS has no types of GPUs; ask for a resource of your site with extra"),
        ("constraint=ib", "constraint", "PBS has no constraints"),
        ("tmp=1GB", "tmp", "PBS has no tmp"),
        ("licenses=matlab:1", "licenses", "PBS has no licenses"),
        ("qos=long", "qos", "PBS has no qos"),
        ("reservation=course", "reservation", "a reservation of PBS is a queue; name it with queue"),
        ("exclude=n1", "exclude", "PBS can't leave out hosts by their names"),
        ("gres=shard:1", "gres", "of gres PBS knows only GPUs"),
        ("gres=gpu:a100:2", "gres", "of gres PBS knows only GPUs"),
        ("nodelist=n1,n2", "nodelist", "PBS takes one host by its name"),
        ("nodelist=n1+2:ncpus=4", "nodelist", "PBS takes one host by its name"),
        ("nodes=2:nodelist=n1", "nodelist", "PBS takes one host by its name"),
    ],
)
def test_what_pbs_has_no_words_for(text: str, field: str, words: str) -> None:
    ((found, told),) = lacking(parse(text), "pbs")
    assert found == field
    assert told.startswith(words)
    with pytest.raises(ValueError, match=re.escape(f"{field}: {words}")):
        pbs(parse(text))
    assert lacking(parse(text), "slurm") == []


def test_options_of_the_other_scheduler() -> None:
    of_slurm, of_pbs = parse({"extra": {"mail-type": "END"}}), parse({"extra": {"W": "group_list=staff"}})
    with pytest.raises(ValueError, match="extra: 'W' is an option of PBS; Slurm's go by their long names"):
        slurm(of_pbs)
    with pytest.raises(ValueError, match="extra: 'mail-type' is an option of Slurm; those of PBS are letters"):
        pbs(of_slurm)
    taken_away: Extra = (("W", False), ("mail-type", False))
    assert slurm(Resources(extra=taken_away)) == slurm(Resources())
    assert pbs(Resources(extra=taken_away)) == pbs(Resources())
