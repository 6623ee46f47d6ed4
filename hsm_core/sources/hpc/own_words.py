"""What a task says of its own about resources: `hsm.resources` and `hsm.walltime` of its composed configuration."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Sequence
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsm_core.grid import SAMPLES, Jobs
from hsm_core.multirun import Multirun
from hsm_core.sources.hpc.resources import Resources, of_task

KEY = "hsm"
_OURS = ("resources", "walltime")
_current = threading.Lock()
"""held while the configuration of a task is Hydra's current one, of which there is one in a process"""


def own_words(config: DictConfig) -> object:
    """What stands below `hsm` of a composed configuration, as plain data for `resources.of_task`.

    Of what is none of ours, an app's own perhaps, there are the keys alone. Raises ValueError, in words for people,
    where an interpolation leads nowhere or a value is missing.
    """
    instance = HydraConfig.instance()
    with _current:
        before, instance.cfg = instance.cfg, cast("Any", config)  # what `${hydra:...}` looks into
        try:
            node = OmegaConf.select(config, KEY)
            if not isinstance(node, DictConfig):
                return None
            return {str(key): None for key in node} | {key: _plain(node, key) for key in _OURS if key in node}
        except OmegaConfBaseException as e:
            words = str(e).partition("\n")[0]
            raise ValueError(f"{e.full_key or KEY}: {words}") from e
        finally:
            instance.cfg = before


def _plain(node: DictConfig, key: str) -> Any:
    found = OmegaConf.select(node, key, throw_on_missing=True)
    if not OmegaConf.is_config(found):
        return found
    return OmegaConf.to_container(found, resolve=True, throw_on_missing=True, enum_to_str=True)


def wrong_early(multirun: Multirun, jobs: Sequence[Sequence[str]]) -> list[str]:
    """What is wrong for every task, or with overrides of jobs, whichever groups they choose.

    Only mistakes in reading count: what is missing here may come with a group, as may GPUs.
    """
    found: dict[str, None] = {}
    some = jobs.samples() if isinstance(jobs, Jobs) else jobs
    distinct = dict.fromkeys(tuple(text for text in job if _KEY.match(text)) for job in some)
    for own in itertools.islice(distinct, SAMPLES):
        try:
            words = own_words(multirun.composer.compose(own, 0) if own else multirun.config)
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        try:
            of_task(Resources(gpus=1), words)
        except ValueError as e:
            found[": ".join([*([" ".join(own)] if own else []), str(e)])] = None
    return list(found)


_KEY = re.compile(r"(?:~|\+{0,2})hsm(?:[.=]|$)")
