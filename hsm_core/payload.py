"""The payload of a sweep: what every task needs beside its own overrides.

Written once per launcher into a folder of its own, read by zygotes and workers
(`hsm_core.remote.app.Payload`). JSON for what is plain, one pickle for Hydra's objects;
classes of the app are pickled by reference, since the app is imported there first. It is never
changed: attempts that outlive their launcher, and `original_code`, read it later.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobRuntime
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from hsm_core.entry import Entry, app_dir
from hsm_core.exceptions import SnapshotError
from hsm_core.multirun import Multirun
from hsm_core.remote import plugin_configs
from hsm_core.snapshot import Snapshot, take

log = logging.getLogger(__name__)


def freeze(target: Path, config: DictConfig, entry: Entry | None, hidden: Collection[Path] = ()) -> Snapshot:
    """Take the snapshot of the app's code and configuration files, but for the `hidden` ones. Raises SnapshotError.

    `entry` is what `hsm_core.entry.find_entry` found.
    """
    script = Path(entry["path"]).resolve() if entry is not None and entry["kind"] == "script" else None
    return take(app_dir(entry), _config_dirs(config), target, script, hidden)


def write(
    folder: Path,
    snapshot: Snapshot,
    multirun: Multirun,
    job: Sequence[str],
    entry: Entry | None,
) -> None:
    """Write what tasks need beside the snapshot; without an entry the function goes by value.

    What the task with the overrides `job` shares with others goes along, composed.

    Raises SnapshotError when something can't be sent.
    """
    config, context = multirun.config, multirun.context
    search_path = [(e.provider, e.path) for e in context.config_loader.get_search_path().get_path()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    objects: dict[str, Any] = {
        "config": config,
        "callbacks": context.callbacks,
        "execution_whitelist": getattr(context, "execution_whitelist", None),
        "learnt": multirun.composer.learnt(job),
        "plugin_configs": plugin_configs.find(context.config_loader, config),
    }
    if entry is None:
        entry = {"kind": "value", "cwd": os.getcwd(), "path": sys.path}
        blob = _by_value(multirun.function, objects)
    else:
        blob = _by_reference(objects)
    facts: Mapping[str, Any] = {
        "format": 1,
        "entry": entry,
        "cwd": os.getcwd(),
        "job_name": JobRuntime.instance().get("name"),
        "sweep_dir": os.path.abspath(config.hydra.sweep.dir),
        "search_path": search_path,
        "frozen": {root: os.path.relpath(copy, folder) for root, copy in snapshot.roots.items()},
    }
    _put(folder / "payload.json", json.dumps(facts, indent=1).encode())
    _put(folder / "payload.pkl", blob)


def _by_reference(objects: dict[str, Any]) -> bytes:
    first: Exception | None = None
    # What can't be pickled is composed there anew; a callback, made anew from its configuration.
    for left_out in ((), ("learnt",), ("learnt", "callbacks")):
        try:
            return pickle.dumps({**objects, **dict.fromkeys(left_out)})
        except Exception as e:  # foreign objects may raise anything when pickled
            first = first or e
    raise SnapshotError(f"the configuration of the sweep can't be sent to the tasks: {first}") from first


def _by_value(function: TaskFunction, objects: dict[str, Any]) -> bytes:
    import cloudpickle
    from hydra.core.singleton import Singleton

    try:
        extra = {
            "function": function,
            # Apart, since a machine without the launcher's plugins can't load it.
            "singletons": cloudpickle.dumps(Singleton.get_state()),
            "stored": plugin_configs.stored(cloudpickle.dumps),
        }
        blob: bytes = cloudpickle.dumps({**objects, **extra})
    except Exception as e:  # foreign objects may raise anything when pickled
        raise SnapshotError(
            f"the task function {function!r} can't be sent to the tasks: {e}. hsm found no program to run again for it "
            "(a notebook, a test, a debugger); define it in a module that can be imported."
        ) from e
    return blob


def _config_dirs(config: DictConfig) -> list[Path]:
    sources = OmegaConf.select(config, "hydra.runtime.config_sources") or []
    return [Path(s.path).resolve() for s in sources if s.schema == "file"]


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
    os.rename(temporary, path)
