"""The part of the conformance suite about tasks that return, raise and ask for what no one should."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from hsm_core.override_text import quote
from hsm_core.records import exception, return_value
from hsm_core.task import Cause

if TYPE_CHECKING:
    from hsm_core.testing import Bench


class HostileTasks:
    """Tests of `hsm_core.testing.SourceSuite`, with its fixture `bench`."""

    @pytest.mark.parametrize(
        "text", ["; touch marker", "$(touch marker)", "`touch marker`", "a'b\"c\\d", "x\ny\tz", "ünïcödé 🦆", "-rf --"]
    )
    def test_overrides_arrive_as_they_are(self, bench: Bench, text: str) -> None:
        finished = bench.run(0, "do=show", f"text={quote(text)}")
        bench.bring_home()
        assert finished.outcome.completed
        assert json.loads(bench.output(0, "text.json").read_text()) == text
        assert not list(bench.directory.parent.rglob("marker"))

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("lock", "lock: cannot pickle '_thread.lock' object"),
            ("generator", "generator: cannot pickle 'generator' object"),
            ("huge", "bytearray: larger than 64 MiB when pickled"),
            ("raises", "Odd: not to be pickled"),
            ("recurses", "Odd: maximum recursion depth exceeded"),
            ("exits", "Odd: the process ended while it was pickled"),
            ("dies", "Odd: the process ended while it was pickled"),
        ],
    )
    def test_return_value_that_cannot_be_saved(self, bench: Bench, kind: str, words: str) -> None:
        finished = bench.run(0, "do=strange", f"kind={kind}")
        assert finished.outcome.completed
        assert f"the return value cannot be saved: {words}" in (finished.outcome.warning or "")
        shown = f"<{words.partition(':')[0]}>"
        assert return_value(bench.record(finished), bench.records, trusted=True) == shown
        assert bench.leftovers() == []

    @pytest.mark.parametrize(
        ("kind", "right"),
        [
            ("not_a_number", lambda value: value != value),
            ("loop", lambda value: value[0] is value),
            ("long", lambda value: value == "x" * (30 << 20)),
            ("unloadable", lambda value: value == "<Odd>"),
        ],
    )
    def test_return_value_of_a_strange_kind(self, bench: Bench, kind: str, right: Callable[[Any], bool]) -> None:
        finished = bench.run(0, "do=strange", f"kind={kind}")
        assert finished.outcome.completed
        assert finished.outcome.warning is None
        assert len(json.dumps(finished.outcome.return_value, allow_nan=False)) < 3000
        bench.bring_home()
        assert right(return_value(bench.record(finished), bench.records, trusted=True))

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("choosy", "Choosy: 3: picky"),
            ("mute", "Mute: <the message of this Mute can't be shown: RuntimeError>"),
            ("final", "Final: the last word"),
            ("interrupt", "KeyboardInterrupt: nobody pressed it"),
            ("group", "several (2 "),
            ("huge", "ValueError: xxx"),
            ("dirty", "ValueError: bell\x07 \x1b]0;evil\x07 half \ud800 nul \0"),
            ("loop", "ValueError: one"),
            ("chain", "ValueError: 1999"),
        ],
    )
    def test_exception_of_a_strange_kind(self, bench: Bench, kind: str, message: str) -> None:
        finished = bench.run(0, "do=fail", f"kind={kind}")
        assert finished.outcome.cause is Cause.ERROR
        assert message in finished.outcome.message
        assert len(finished.outcome.message) < 3000
        error = bench.record(finished)["error"]
        assert "in main" in error["traceback"]
        assert error["type"] in finished.outcome.message
        assert isinstance(exception(bench.record(finished), bench.records, trusted=False), Exception)

    def test_texts_that_would_act_on_a_terminal_are_kept_and_harm_nothing(self, bench: Bench) -> None:
        evil = "\x1b]0;evil\x07\x9b31m\x00\u202e\ud800"
        returned, raised = bench.run(0, "do=evil"), bench.run(1, "do=raise_evil")
        assert returned.outcome.completed
        assert returned.outcome.return_value == evil
        assert raised.outcome.cause is Cause.ERROR
        assert bench.record(raised)["error"]["message"] == evil

    @pytest.mark.parametrize(
        "subdir",
        ["../out", "a/../../out", "/nowhere/out", ".", "", ".hsm/results", "nul\0", "x" * 300],
        ids=lambda name: name[:12].replace("\0", "NUL"),
    )
    def test_output_directories_out_of_the_sweep_are_refused(self, bench: Bench, subdir: str) -> None:
        before = sorted(bench.directory.iterdir())
        finished = bench.run(0, "do=return", f"hydra.sweep.subdir={quote(subdir)}")
        assert finished.outcome.cause is Cause.ERROR
        expected = "File name too long" if len(subdir) > 255 else "see hydra.sweep.subdir"
        assert expected in finished.outcome.message
        assert ("Traceback" in bench.record(finished)["error"]["traceback"]) == (len(subdir) > 255)
        bench.bring_home()
        assert sorted(bench.directory.iterdir()) == before
        assert not (bench.directory.parent / "out").exists()
        assert bench.run(1, "do=return").outcome.completed

    def test_nothing_is_written_through_a_link_out_of_the_sweep(self, bench: Bench) -> None:
        outside = bench.directory.parent / "elsewhere"
        outside.mkdir()
        (bench.directory / "link").symlink_to(outside)
        bench.run(0, "do=return", "hydra.sweep.subdir=link/out")
        bench.bring_home()
        assert list(outside.iterdir()) == []
        assert bench.run(1, "do=return").outcome.completed

    @pytest.mark.parametrize("subdir", ["-rf", "a b/c", "new\nline", "$(touch marker)", "'; touch marker", "ü/🦆"])
    def test_output_directories_of_any_name(self, bench: Bench, subdir: str) -> None:
        finished = bench.run(0, "do=return", f"hydra.sweep.subdir={quote(subdir)}")
        assert finished.outcome.completed
        assert finished.outcome.output_dir == str(bench.directory / subdir)
        bench.bring_home()
        assert (bench.directory / subdir / "stdout.log").is_file()
        assert not list(bench.directory.parent.rglob("marker"))

    def test_no_two_tasks_have_one_output_directory(self, bench: Bench) -> None:
        attempts = [bench.attempt(index, "do=return", f"value={index}", "hydra.sweep.subdir=one") for index in range(4)]
        bench.source.submit(attempts)
        ended = {attempt.task.name: bench.ended(attempt).outcome for attempt in attempts}
        (first,) = (name for name, outcome in ended.items() if outcome.completed)
        others = {outcome.message for outcome in ended.values() if not outcome.completed}
        (words,) = others
        assert words.startswith("OutputDirectoryError: its output directory /")
        assert words.endswith(f"/one is that of {first} too; see hydra.sweep.subdir")
        again = bench.attempt(int(first[-1]) - 1, "do=return", "value=9", "hydra.sweep.subdir=one", number=2)
        bench.source.submit([again])
        assert bench.finished(again).outcome.completed
