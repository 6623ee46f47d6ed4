"""What tasks ask a scheduler for: read from text and mappings, merged, and told where it is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.config import SourceConfig
from hsm_core.sources.hpc.resources import Resources, merged, of_source, of_task, parse, read
from hsm_core.text import printable


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("nodes=1:ntasks=4:mem=32GB", Resources(nodes=1, ntasks=4, mem=32 * 1024)),
        ("nodes=4:ntasks=16", Resources(nodes=4, ntasks=16)),
        ("mem=16GB", Resources(mem=16 * 1024)),
        ("mem=4000", Resources(mem=4000)),
        ("mem=1.5KB", Resources(mem=1)),
        ("mem-per-cpu=2G:cpus-per-task=8", Resources(mem_per_cpu=2048, cpus_per_task=8)),
        ("mem_per_gpu=2G:gpus=2", Resources(mem_per_gpu=2048, gpus=2)),
        ("ntasks_per_node=4:nodes=2", Resources(nodes=2, ntasks_per_node=4)),
        ("nodes=1:ppn=8", Resources(nodes=1, cpus_per_task=8)),
        ("ncpus=8:ngpus=1", Resources(cpus_per_task=8, gpus=1)),
        ("gpus=2", Resources(gpus=2)),
        ("gpus=a100:2:mem=4GB", Resources(gpus=2, gpu_type="a100", mem=4096)),
        ("gpus=a100:mem=4GB", Resources(gpus=1, gpu_type="a100", mem=4096)),
        ("gpus_per_node=0", Resources(gpus=0)),
        ("gres=gpu:a100:2,shard:1:nodes=1", Resources(gres="gpu:a100:2,shard:1", nodes=1)),
        ("licenses=matlab:1", Resources(licenses="matlab:1")),
        ("walltime=1-12:30:00:mem=1GB", Resources(walltime=36 * 3600 + 1800, mem=1024)),
        ("time=90m", Resources(walltime=5400)),
        ("exclusive:nodes=1", Resources(exclusive=True, nodes=1)),
        ("exclusive=user", Resources(exclusive="user")),
        ("exclusive=false", Resources(exclusive=False)),
        ("constraint=a100&ib|[rack1*2]", Resources(constraint="a100&ib|[rack1*2]")),
        ("nodelist=n[1-3],n7:exclude=n2", Resources(nodelist="n[1-3],n7", exclude="n2")),
        ("tmp=100GB:reservation=course", Resources(tmp=102400, reservation="course")),
        ("partition=gpu:account=p1:qos=long", Resources(queue="gpu", account="p1", qos="long")),
        (" nodes = 1 : mem = 2 GB ", Resources(nodes=1, mem=2048)),
    ],
)  # fmt: skip
def test_text(text: str, resources: Resources) -> None:
    assert parse(text) == resources


def test_a_mapping_says_the_same_as_a_text() -> None:
    mapping = {
        "nodes": 1,
        "cpus-per-task": "8",
        "mem": 4096,
        "gpus": "a100:2",
        "nodelist": ["n1", "n2"],
        "exclusive": True,
        "walltime": "12:00:00",
        "qos": None,
        "extra": {"mail-type": "END", "nice": 10, "contiguous": True, "hint": ["a", "b"], "bb": None},
    }
    found = parse(mapping)
    text = "nodes=1:cpus_per_task=8:mem=4GB:gpus=a100:2:nodelist=n1,n2:exclusive:walltime=12:00:00"
    assert found == merged(parse(text), Resources(extra=found.extra))
    assert dict(found.extra) == {"mail-type": "END", "nice": "10", "contiguous": True, "hint": ("a", "b"), "bb": False}


def test_equal_resources_are_one_group() -> None:
    one = parse({"mem": "4GB", "extra": {"nice": 1, "mail_type": "END"}})
    other = parse({"extra": {"mail-type": "END", "nice": "1"}, "mem": 4096})
    assert len({one, other, parse("mem=5GB")}) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("mmem=4GB", "there is no resource 'mmem'; did you mean mem?"),
        ("cpu_per_task=4", "there is no resource 'cpu_per_task'; did you mean cpus_per_task?"),
        ("colour=red", "there is no resource 'colour'; there are nodes, ntasks, "),
        ("nodes=1:nodes=2", "'nodes' says again what 'nodes' says; keep one of them"),
        ("cpus=1:ncpus=2", "'ncpus' says again what 'cpus' says; keep one of them"),
        ("nodes", "'nodes' has no value; write for example nodes=1:ntasks=4:mem=32GB"),
        ("nodes=1:4", "'4' has no value; write for example"),
        ("nodes=1::mem=1GB", "there is nothing between two colons"),
        ("", "there is nothing between two colons"),
        ("nodes=0", "nodes: must be a whole number, 1 or more, not the text '0'"),
        ("nodes=two", "nodes: must be a whole number, 1 or more, not the text 'two'"),
        ("nodes=1-2", "nodes: must be a whole number, 1 or more, not the text '1-2'"),
        ("ntasks=-1", "ntasks: must be a whole number, 1 or more, not the text '-1'"),
        ("mem=lots", "mem: the text 'lots' is no size; write for example 512MB"),
        ("mem=0", "mem: the text '0' is no size that anything can have"),
        ("mem=1GB:mem_per_cpu=1GB", "'mem' and 'mem_per_cpu' ask for memory both; keep one of them"),
        ("mem_per_gpu=1GB", "'mem_per_gpu' needs gpus"),
        ("gpus=1:gres=gpu:1", "'gres' asks for GPUs too; keep 'gpus' or 'gres'"),
        ("gpus=a100:many", "gpus: must be a number, or a type and a number as in a100:2, not the text 'a100:many'"),
        ("gpus=-1", "gpus: must be a whole number, 0 or more, not the text '-1'"),
        ("walltime=90", "walltime: the text '90' has no unit; write 90m for minutes, 90s for seconds"),
        ("exclusive=maybe", "exclusive: must be true, false, user or mcs, not the text 'maybe'"),
        ("queue=a b", "queue: must be a word without spaces, not the text 'a b'"),
        ("constraint=x\nrm -rf", "constraint: must be a word without spaces, not the text 'x\\nrm -rf'"),
        ("extra=x", "extra: must be a mapping of options to values as in {mail-type: END}, not the text 'x'"),
        ({"nodes": True}, "nodes: must be a whole number, 1 or more, not true"),
        ({"nodes": 1.0}, "nodes: must be a whole number, 1 or more, not the number 1.0"),
        ({"mmem": 1}, "there is no resource 'mmem'; did you mean mem?"),
        ({"queue": ["a"]}, "queue: must be a word without spaces, not a list"),
        ({"walltime": 43200}, "walltime: the number 43200 is no wall time"),
        ({"nodelist": ["n1", "n 2"]}, "nodelist: must be a word without spaces, not the text 'n 2'"),
        ({"extra": {"mem": "4GB"}}, "extra: mem: belongs to default_resources, as mem=..."),
        ({"\x1b[2J": 1}, "\\x1b[2J: there is no resource '\\x1b[2J'"),
    ],
)
def test_what_is_wrong(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(value)


def test_all_that_is_wrong_at_once() -> None:
    found, problems = read("nodes=x:mmem=1:mem=4GB:walltime=5")
    assert [key for key, _ in problems] == ["nodes", "mmem", "walltime"]
    assert found == Resources(mem=4096)
    with pytest.raises(ValueError, match=r"nodes: .*; there is no resource 'mmem'.*; walltime: "):
        parse("nodes=x:mmem=1:mem=4GB:walltime=5")


@given(st.text(max_size=40))
def test_no_text_ends_in_anything_but_resources_or_words(text: str) -> None:
    _, problems = read(text)
    for _, words in problems:
        assert words == printable(words)


# --- options of the scheduler ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"mem": 1}, "mem: belongs to default_resources, as mem=..."),
        ({"gpus-per-node": 1}, "gpus-per-node: belongs to default_resources, as gpus=..."),
        ({"time": "1:00"}, "time: is a setting of its own: default_walltime"),
        ({"q": "gpu"}, "q: is a setting of its own: queue"),
        ({"no_requeue": True}, "no_requeue: is a setting of its own: requeue"),
        ({"array": "0-3"}, "array: is given by hsm itself"),
        ({"wrap": "rm -rf /"}, "wrap: is given by hsm itself"),
        ({"J": "0-3"}, "J: is given by hsm itself"),
        ({"--mail-type": "END"}, "--mail-type: write it without dashes: mail-type"),
        ({"mail type": "END"}, "mail type: the text 'mail type' is no name of an option"),
        ({"": 1}, "the text '' is no name of an option"),
        ({"x=1\n#": 1}, "is no name of an option"),
        ({"hint": "a\nrm -rf ~"}, "hint: must be one line of text, not the text 'a\\nrm -rf ~'"),
        ({"hint": ["a", "b\r"]}, "hint: must be one line of text, not the text 'b\\r'"),
        ({"hint": ""}, "hint: must be one line of text, not the text ''"),
        ({"hint": {}}, "hint: must be text, a number, true, false or a list of texts, not a mapping"),
        ({"hint": [True]}, "hint: must be text or numbers, not true"),
        ({"hint": []}, "hint: must not be an empty list"),
        ({"l": "select=1:ncpus=4"}, "l: 'select' is given by hsm itself; write it in default_resources"),
        ({"l": ["software=x", "walltime=1:00"]}, "l: 'walltime' is given by hsm itself"),
        ({"W": "depend=afterok:1"}, "W: 'depend=afterok:1' is given by hsm itself"),
        (["--mail-type=END"], "must be a mapping of options to values as in {mail-type: END}, not a list"),
    ],
)
def test_options_that_are_refused(extra: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse({"extra": extra})


# --- merging --------------------------------------------------------------------------------------


def test_a_tasks_own_words_come_first() -> None:
    defaults = parse("nodes=1:ntasks=4:mem=32GB:gpus=a100:2:walltime=12:00:00:queue=gpu")
    own = merged(defaults, parse("mem=64GB:walltime=1h"))
    assert own == parse("nodes=1:ntasks=4:mem=64GB:gpus=a100:2:walltime=1:00:00:queue=gpu")
    assert merged(defaults, Resources()) == defaults


@pytest.mark.parametrize(
    ("defaults", "own", "result"),
    [
        ("mem=32GB:nodes=1", "mem_per_cpu=2GB", "mem_per_cpu=2GB:nodes=1"),
        ("mem_per_gpu=2GB:gpus=1", "mem=4GB", "mem=4GB:gpus=1"),
        ("gres=gpu:a100:2", "gpus=1", "gpus=1"),
        ("gpus=a100:2", "gpus=1", "gpus=1"),
        ("gpus=a100:2", "gpus=0", "gpus=0"),
        ("ntasks=4", "ntasks_per_node=2", "ntasks_per_node=2"),
        ("exclusive:nodes=1", "exclusive=false", "exclusive=false:nodes=1"),
    ],
)
def test_other_words_for_the_same_thing_take_its_place(defaults: str, own: str, result: str) -> None:
    assert merged(parse(defaults), parse(own)) == parse(result)


def test_options_are_merged_one_by_one() -> None:
    defaults = parse({"extra": {"mail-type": "END", "nice": 1, "contiguous": True}})
    own = parse({"extra": {"nice": 5, "contiguous": None}})
    assert dict(merged(defaults, own).extra) == {"mail-type": "END", "nice": "5", "contiguous": False}


def test_what_a_source_says() -> None:
    config = SourceConfig(
        type="hpc",
        default_resources="nodes=1:ntasks=4:mem=32GB",
        default_walltime="12:00:00",
        queue="gpu",
        account="p1",
        qos="long",
        extra={"nice": 1},
    )
    assert of_source(config) == Resources(
        nodes=1, ntasks=4, mem=32768, walltime=43200, queue="gpu", account="p1", qos="long", extra=(("nice", "1"),)
    )
    assert of_source(SourceConfig(type="hpc", resources={"nodes": 2})) == Resources(nodes=2)
    assert of_source(SourceConfig(type="hpc")) == Resources()


@pytest.mark.parametrize(
    ("node", "result"),
    [
        ({"resources": "mem=64GB"}, "mem=64GB:walltime=1h"),
        ({"resources": {"mem": "64GB", "gpus": 1}}, "mem=64GB:gpus=1:walltime=1h"),
        ({"walltime": "2:00:00"}, "mem=1GB:walltime=2h"),
        ({"resources": "walltime=3h", "walltime": "2:00:00"}, "mem=1GB:walltime=2h"),
        ({"resources": None, "walltime": None}, "mem=1GB:walltime=1h"),
        ({"states": 3, "emission": "gauss"}, "mem=1GB:walltime=1h"),
        ("an app's own", "mem=1GB:walltime=1h"),
        (None, "mem=1GB:walltime=1h"),
    ],
)
def test_what_a_task_says(node: object, result: str) -> None:
    assert of_task(parse("mem=1GB:walltime=1h"), node) == parse(result)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"resorces": "mem=1GB"}, "hsm.resorces is nothing that hsm knows; did you mean resources?"),
        ({"resources": "mmem=1"}, "hsm.resources: there is no resource 'mmem'; did you mean mem?"),
        ({"resources": 5}, "hsm.resources: must be text or a mapping, not the number 5"),
        ({"walltime": 7200}, "hsm.walltime: the number 7200 is no wall time; write for example"),
    ],
)
def test_what_is_wrong_in_a_tasks_configuration(node: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        of_task(Resources(), node)


# --- what follows from them -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tasks", "cpus", "memory", "gpus"),
    [
        ("nodes=1", 1, 1, None, 0),
        ("nodes=1:ntasks=4:mem=32GB", 4, 4, 32768, 0),
        ("nodes=2:ntasks=5:cpus_per_task=2:mem_per_cpu=1GB", 3, 6, 6144, 0),
        ("nodes=2:ntasks_per_node=4", 4, 4, None, 0),
        ("gpus=2:mem_per_gpu=8GB", 1, 1, 16384, 2),
        ("gres=gpu:a100:2,shard:1,gpu:4:mem_per_gpu=1GB", 1, 1, 6144, 6),
        ("gres=gpu", 1, 1, None, 1),
        ("gres=gres/gpu:3", 1, 1, None, 3),
        ("gres=gpu_mem:3,shard:2", 1, 1, None, 0),
    ],
)
def test_of_each_node(text: str, tasks: int, cpus: int, memory: int | None, gpus: int) -> None:
    found = parse(text)
    assert (found.tasks_per_node, found.cpus, found.memory, found.gpu_count) == (tasks, cpus, memory, gpus)


@pytest.mark.parametrize("text", ["mem=4GB", "mem_per_cpu=1GB:cpus=4", "mem_per_gpu=2GB:gpus=2", "nodes=1"])
def test_more_memory_for_another_attempt(text: str) -> None:
    asked = parse(text)
    more = asked.with_memory(2 * (asked.memory or 2048))
    assert more.memory == 2 * (asked.memory or 2048)
    assert more.with_memory(1000.2).memory == 1001
