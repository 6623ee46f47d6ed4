"""Composing in the launcher what a worker composes on the compute side: from the same payload, and the same copies."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

from hsm_core.remote.app import Payload
from hsm_core.remote.compose import Composer
from hsm_core.remote.frozen import Frozen


def frozen_composer(folder: Path) -> Composer:
    """A composer of the payload in this folder, whatever has become of the files that it was made from.

    The app must have been imported here. A composer is for one thread.
    """
    payload = Payload.read(str(folder))
    search_path = ConfigSearchPathImpl()
    for provider, path in payload.facts["search_path"]:
        search_path.append(provider, path)
    loader = ConfigLoaderImpl(config_search_path=search_path)
    Frozen(payload.copies()).freeze_loader(loader)
    objects = payload.objects()
    return Composer(loader, objects["config"], objects["learnt"])
