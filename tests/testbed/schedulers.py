"""How sources of tests reach a scheduler of ours, and how they ask it more often than they would a site's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from hsm_core.config import SourceConfig
from hsm_core.sources.hpc import allowance, source, waiting, watch
from hsm_core.testing import Bench


def use(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, grace: float = 0.5) -> None:
    """Have this process talk to the scheduler of `environ`; `grace` are seconds that a result is waited for."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(allowance, "EVERY", 0.3)
    monkeypatch.setattr(watch, "GRACE", grace)
    monkeypatch.setattr(watch, "CALLED_OFF", grace)
    monkeypatch.setattr(source, "POLL", 0.5)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(allowance, "GATHER", 0.05)
    monkeypatch.setattr(source, "TICK", 0.05)


MakeBench = Callable[..., Bench]


@contextlib.contextmanager
def benches(folder: Path) -> Iterator[MakeBench]:
    """Starts sources with the settings it is given, each with a bench in a folder of its own; all are stopped."""
    made: list[Bench] = []

    def make(slots: int = 4, **settings: object) -> Bench:
        config = SourceConfig(type="hpc", **settings)  # type: ignore[arg-type]
        bench = Bench(source.HpcSource("cluster", config, slots), folder / str(len(made)))
        made.append(bench)
        bench.start()
        return bench

    yield make
    for bench in made:
        bench.source.stop(20.0)
