"""Variables that a source's configuration gives its tasks (`env`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hsm_core.config import SourceConfig


def given(config: SourceConfig) -> tuple[dict[str, str], list[str]]:
    """The variables of `env.pass` and `env.set`, and the names of the former that are not set here."""
    names: Sequence[str] = config.env.get("pass") or ()
    values: Mapping[str, object] = config.env.get("set") or {}
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return {**passed, **{name: str(value) for name, value in values.items()}}, [n for n in names if n not in passed]
