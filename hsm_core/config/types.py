"""Whether a configuration value has the type of its field, and the words to say so.

Types are those the schema of `hsm_core.config` uses: bool, int, float, str, lists, mappings,
dataclasses and unions of them. A bool is no number, text is never read as one, and a whole
number does where a float is wanted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from hsm_core.text import printable

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    Mapping: "a mapping",
}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union without None; any other type alone."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(h for h in get_args(hint) if h is not types.NoneType)
    return (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Whether the value has this type. Mappings and dataclasses are not looked into."""
    return any(_is_one(value, one) for one in alternatives(hint))


def _is_one(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    kind = get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if kind is list:
        return isinstance(value, list) and all(fits(item, get_args(hint)[0]) for item in value)
    return isinstance(value, kind)


def mismatch(value: Any, hint: Any) -> str:
    """What is wrong with a value that does not fit, and what to write where that can be told."""
    wanted = " or ".join(_name(one) for one in alternatives(hint))
    return f"must be {wanted}, not {shown(value)}{advice(value, hint)}"


def _name(hint: Any) -> str:
    return "a mapping" if dataclasses.is_dataclass(hint) else _NAMES[get_origin(hint) or hint]


def shown(value: Any) -> str:
    """The value in words: `the number 8`, `the text 'abc'`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{printable(value, 60)}'"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else f"a value of type {type(value).__name__}"


def advice(value: Any, hint: Any) -> str:
    """`; write 8` for the text "8" where a number is wanted, and the like; empty where nothing can be told."""
    kinds = [get_origin(one) or one for one in alternatives(hint)]
    if isinstance(value, str):
        return _advice_for_text(value, kinds)
    if isinstance(value, float) and int in kinds and value.is_integer():
        return f"; write {int(value)}"
    if isinstance(value, (bool, int, float)) and str in kinds:
        return "; put it in quotes"
    return ""


def _advice_for_text(value: str, kinds: list[Any]) -> str:
    if bool in kinds and value.lower() in ("true", "false"):
        return f"; write {value.lower()}"
    number = _number(value)
    if number is not None and (float in kinds or (int in kinds and isinstance(number, int))):
        return f"; write {number}"
    return f"; write {json.dumps([value], ensure_ascii=False)}" if list in kinds and len(value) <= 60 else ""


def _number(text: str) -> int | float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number
