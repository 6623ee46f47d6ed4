"""Overrides without a need for Hydra's grammar: `lr=0.1`, `+model.size=3`, `db=mysql`.

Hydra's parser takes a millisecond for each. What is not plainly one of these is for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# hydra/grammar/OverrideLexer.g4; narrower than that wherever two rules may meet.
_PLAIN = re.compile(
    r"(?P<mark>\+{0,2})(?P<key>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)="
    r"(?:(?P<int>-?(?:0|[1-9]\d*))"
    r"|(?P<float>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_]\w*))",
    re.ASCII,
)
_RESERVED = frozenset({"true", "false", "null", "inf", "nan"})


def parse_overrides(overrides: Sequence[str]) -> list[Any]:
    """The overrides as Hydra's parser gives them. Raises what that raises."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = [_plain(override) for override in overrides]
    if None not in parsed:
        return parsed
    # All of them: Hydra tells of a mistake with its place among the others.
    return OverridesParser.create().parse_overrides(list(overrides))


def _plain(text: str) -> Any | None:
    from hydra.core.override_parser.types import Override, OverrideType, ValueType

    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    value: int | float | str
    if found["int"] is not None:
        value = int(found["int"])
    elif found["float"] is not None:
        value = float(found["float"])
    elif found["word"].lower() in _RESERVED:
        return None
    else:
        value = found["word"]
    kind = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)[len(found["mark"])]
    return Override(type=kind, key_or_group=found["key"], value_type=ValueType.ELEMENT, _value=value, input_line=text)
