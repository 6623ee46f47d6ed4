"""Hydra's own compliance suites for launchers, with hsm's launcher in each of its ways."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

from hydra_plugins.hydra_hsm.launcher import HsmLauncher
from hydra_plugins.hydra_hsm.sweeper import HsmSweeper

WAYS = [
    ("hsm", ["hydra.launcher.worker=fork"]),
    ("hsm", ["hydra.launcher.worker=spawn"]),
    ("hsm", ["hydra.launcher.isolation=reuse"]),
    (
        "hsm",
        ["+hydra.launcher.compute_sources={a:{type:local,max_parallel_tasks:1},b:{type:local,max_parallel_tasks:1}}"],
    ),
]
IDS = ["fork", "spawn", "reuse", "two-sources"]


def test_discovery() -> None:
    assert HsmLauncher.__name__ in [cls.__name__ for cls in Plugins.instance().discover(Launcher)]
    assert HsmSweeper.__name__ in [cls.__name__ for cls in Plugins.instance().discover(Sweeper)]


@pytest.mark.parametrize(("launcher_name", "overrides"), WAYS, ids=IDS)
class TestHsmLauncher(LauncherTestSuite):
    """The suite with the basic sweeper."""


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [(name, [*way, "hydra/sweeper=hsm"]) for name, way in WAYS[:1]], ids=["hsm-sweeper"]
)
class TestHsmSweeper(LauncherTestSuite):
    """The suite with hsm's sweeper."""


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [(name, [*way, "hydra.sweeper.max_batch_size=2"]) for name, way in WAYS], ids=IDS
)
class TestHsmLauncherBatched(BatchedSweeperTestSuite):
    """Many calls of `launch` in one sweep."""


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m", f"hydra/launcher={name}", "hydra.launcher.on_existing=overwrite", *way]) for name, way in WAYS],
    ids=IDS,
)
class TestHsmLauncherIntegration(IntegrationTestSuite):
    """Apps started as programs of their own. One test runs two sweeps in one directory: hence on_existing."""
