"""What the tests of PBS share: a PBS to submit to, and a watcher that knows nothing of other tests' jobs."""

from __future__ import annotations

from collections.abc import Iterator

import cloudpickle
import pytest

from hsm_core.pbs import PbsInfoWatcher, PbsJob
from tests.pbs import jobs
from tests.testbed.pbs.bed import pbs, stand_in

__all__ = ["pbs", "stand_in"]


@pytest.fixture(autouse=True)
def watcher(monkeypatch: pytest.MonkeyPatch) -> PbsInfoWatcher:
    """The one that this test's jobs ask."""
    made = PbsInfoWatcher()
    monkeypatch.setattr(PbsJob, "watcher", made)
    return made


@pytest.fixture(scope="session", autouse=True)
def _jobs_go_by_value() -> Iterator[None]:
    cloudpickle.register_pickle_by_value(jobs)
    yield
    cloudpickle.unregister_pickle_by_value(jobs)
