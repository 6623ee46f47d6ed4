"""Values of `env.set` in a composed configuration: hidden before anything writes it into a file."""

from __future__ import annotations

from typing import Any

MASK = "***"


def mask_environment(config: Any) -> None:
    """Put `***` in place of every value of `hydra.launcher.compute_sources.<name>.env.set`.

    To be called on every configuration that Hydra may save: `multirun.yaml` and each task's
    `.hydra/hydra.yaml` hold the launcher's settings, and anyone may be shown those.
    """
    from omegaconf import flag_override

    sources = _inner(_inner(config.hydra, "launcher"), "compute_sources")
    for name in [] if sources is None else list(sources):
        values = _inner(_inner(_inner(sources, name), "env"), "set")
        if values is not None:
            with flag_override(values, ["readonly", "struct"], False):
                values.update(dict.fromkeys(values, MASK))


def _inner(node: Any, key: Any) -> Any:
    """The mapping below a key as it is written, nothing resolved; None where there is no such mapping."""
    from omegaconf import DictConfig

    found = node._get_node(key) if node is not None and key in node else None
    plain = isinstance(found, DictConfig) and not (found._is_none() or found._is_missing() or found._is_interpolation())
    return found if plain else None
