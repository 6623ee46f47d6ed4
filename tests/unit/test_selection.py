"""The text of `--sources`: every form it can have, and what is said about one that is wrong."""

from __future__ import annotations

import pytest

from hsm_core.config import SourceConfig
from hsm_core.exceptions import SelectionError
from hsm_core.selection import Selected, priorities_given, priority_number, select

CONFIGURED = {
    "local": SourceConfig(type="local", max_parallel_tasks=4),
    "spare": SourceConfig(type="local"),
    "server1": SourceConfig(type="ssh", host="a"),
    "gpu-server": SourceConfig(type="ssh", host="b"),
    "cluster": SourceConfig(type="hpc"),
    "cpu-cluster": SourceConfig(type="hpc"),
    "here": SourceConfig(type="distributed", sources=["spare", "local"]),
    "big": SourceConfig(type="distributed", sources=["cluster", "here", "local"]),
}


def short(text: str, configured: dict[str, SourceConfig] = CONFIGURED) -> str:
    """What was selected, written as a selection again; priorities as numbers behind a `!`."""
    selected = select(text, configured)
    assert all(one.config is configured[one.name] for one in selected)
    return " ".join(
        one.name + ("" if one.limit is None else f":{one.limit}") + ("" if one.priority is None else f"!{one.priority}")
        for one in selected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", "local spare server1 gpu-server cluster cpu-cluster"),
        ("local,spare", "local spare"),
        ("spare,local", "spare local"),
        (" local , spare ", "local spare"),
        ("spare:8", "spare:8"),
        ("local:4,server1:8,cluster:32", "local:4 server1:8 cluster:32"),
        ("local:64", "local:64"),
        ("ssh:gpu-server:16", "gpu-server:16"),
        ("ssh:gpu-server", "gpu-server"),
        ("local:4,ssh:gpu-server:16,hpc:cpu-cluster:32", "local:4 gpu-server:16 cpu-cluster:32"),
        ("hpc", "cluster cpu-cluster"),
        ("ssh,local", "server1 gpu-server local"),
        ("local", "local"),
        ("local:spare", "spare"),
        ("local:local:2", "local:2"),
        ("cluster:high,server1:medium,local:low", "cluster!100 server1!50 local!0"),
        ("ssh:gpu-server:2:high", "gpu-server:2!100"),
        ("gpu-server:low:2", "gpu-server:2!0"),
        ("hpc:high,local", "cluster!100 cpu-cluster!100 local"),
        ("here", "spare local"),
        ("big,server1", "cluster spare local server1"),
        ("distributed:here", "spare local"),
        ("distributed", "spare local cluster"),
        ("here:low", "spare!0 local!0"),
        ("all:high", "local!100 spare!100 server1!100 gpu-server!100 cluster!100 cpu-cluster!100"),
    ],
)
def test_select(text: str, expected: str) -> None:
    assert short(text) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("servr1", ["'servr1': there is no source 'servr1'; did you mean server1?", "big (distributed)"]),
        ("SERVER1", ["did you mean server1?"]),
        ("local,alll", ["'alll'", "did you mean all?"]),
        ("local,local", ["source 'local' is selected twice, by 'local' and by 'local'; name it once"]),
        ("hpc,cluster:4", ["source 'cluster' is selected twice, by 'hpc' and by 'cluster:4'"]),
        ("here,local:4", ["source 'local' is selected twice, by 'here' and by 'local:4'"]),
        ("all,spare", ["source 'spare' is selected twice, by 'all' and by 'spare'"]),
        ("", ["there is nothing between two commas"]),
        ("local,,spare", ["'local,,spare'", "there is nothing between two commas", "local,server1:8"]),
        ("local,", ["there is nothing between two commas"]),
        ("local:", ["'local:' lacks something beside a ':'"]),
        (":4", ["':4' lacks something beside a ':'"]),
        ("ssh::4", ["'ssh::4' lacks something beside a ':'"]),
        ("local:0", ["'local:0': the limit must be 1 or more"]),
        ("local:-3", ["'local:-3': the limit must be 1 or more"]),
        ("local:many", ["'many' is neither a number of tasks nor one of high, medium, low"]),
        ("server1:hihg", ["'server1:hihg'", "'hihg' is neither a number of tasks", "did you mean high?"]),
        ("local:spar", ["'spar' is neither a number of tasks nor one of high, medium, low; did you mean spare?"]),
        ("local:2.5", ["'2.5' is neither a number of tasks"]),
        ("ssh:local", ["'ssh:local': source 'local' is of type local, not ssh"]),
        ("hpc:gpu-server:4", ["source 'gpu-server' is of type ssh, not hpc"]),
        ("shs:gpu-server", ["source 'gpu-server' is of type ssh, not shs; did you mean ssh?"]),
        ("ssh:gpu-servr:4", ["there is no source 'gpu-servr'; did you mean gpu-server?"]),
        ("ssh:gpu-server:4:5:6", ["'ssh:gpu-server:4:5:6' has too many parts"]),
        ("hpc:8", ["'hpc:8': a limit belongs to a source by its name; write for example cluster:8,cpu-cluster:8"]),
        ("all:8", ["'all:8': a limit belongs to a source by its name"]),
        ("here:8", ["'here:8': a limit belongs to a source by its name; write for example spare:8,local:8"]),
        ("cloud", ["there is no source 'cloud'"]),
    ],
)  # fmt: skip
def test_wrong(text: str, parts: list[str]) -> None:
    with pytest.raises(SelectionError) as caught:
        select(text, CONFIGURED)
    for part in parts:
        assert part in str(caught.value)


def test_a_type_nothing_is_configured_of() -> None:
    with pytest.raises(SelectionError, match=r"'hpc': there is no source of type hpc; there are one \(local\)"):
        select("hpc", {"one": SourceConfig(type="local")})


def test_a_third_partys_type() -> None:
    configured = {"x": SourceConfig(type="cloud"), "y": SourceConfig(type="cloud"), "z": SourceConfig(type="ssh")}
    assert short("cloud", configured) == "x y"
    assert short("cloud:y:3", configured) == "y:3"


def test_a_limit_on_the_only_source_of_a_type_still_needs_its_name() -> None:
    with pytest.raises(SelectionError, match="a limit belongs to a source by its name"):
        select("hpc:8", {"cluster": SourceConfig(type="hpc")})


def test_a_group_in_itself() -> None:
    configured = {
        "a": SourceConfig(type="distributed", sources=["x", "b"]),
        "b": SourceConfig(type="distributed", sources=["c"]),
        "c": SourceConfig(type="distributed", sources=["b"]),
        "x": SourceConfig(type="local"),
    }
    with pytest.raises(SelectionError, match=r"group 'b' contains itself: a > b > c > b$"):
        select("a", configured)
    assert short("all", configured) == "x"


def test_a_group_with_a_member_that_does_not_exist() -> None:
    configured = {"g": SourceConfig(type="distributed", sources=["on"]), "one": SourceConfig(type="local")}
    with pytest.raises(SelectionError, match=r"group 'g' names 'on', which is no source; did you mean one\?"):
        select("g", configured)


def test_priorities() -> None:
    assert priorities_given(select("local,cluster:low", CONFIGURED))
    assert not priorities_given(select("local,cluster:4", CONFIGURED))
    assert priority_number("high") > priority_number("medium") > priority_number("low")
    assert priority_number(None) == priority_number("medium")
    assert priority_number(7) == 7


def test_the_selections_priority_counts_before_the_sources_own() -> None:
    config = SourceConfig(type="local", priority="low")
    assert Selected("x", config, None, priority_number("high")).rank == priority_number("high")
    assert Selected("x", config, None, None).rank == priority_number("low")
    assert Selected("x", SourceConfig(type="local", priority=70), None, None).rank == 70
