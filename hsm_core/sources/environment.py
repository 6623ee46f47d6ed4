"""Variables that a source's configuration gives its tasks (`env`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hsm_core.config import SourceConfig


def given(config: SourceConfig) -> tuple[dict[str, str], list[str]]:
    """The variables of `env.pass` and `env.set`, and what people should know of those of the former that have none."""
    names: Sequence[str] = config.env.get("pass") or ()
    values: Mapping[str, object] = config.env.get("set") or {}
    passed = {name: os.environ[name] for name in names if name in os.environ}
    missing = [name for name in names if name not in passed]
    told = [f"env.pass names {name}, which is not set here: tasks there run without it" for name in missing]
    return {**passed, **{name: str(value) for name, value in values.items()}}, told
