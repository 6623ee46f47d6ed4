"""Hydra overrides as text: values written so that they arrive unchanged, keys and values read back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

# A string that Hydra reads back as the same string without quotes, whatever stands around it.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*(?:[./][A-Za-z0-9_\-]+)*\Z")
_WORDS = frozenset({"null", "true", "false", "inf", "nan"})

# Characters that a key of a dict value may hold only behind a backslash.
_KEY_ESCAPES = re.compile(r"[\\()\[\]{}:=, \t]")
_KEY_PLAIN = re.compile(r"[A-Za-z0-9_/\-+.$%*@?|\\()\[\]{}:=, \t]+\Z")
_NUMBER = re.compile(r"[+-]?(?:inf|nan|[0-9][0-9_]*|(?:[0-9][0-9_]*)?\.?[0-9_]*(?:e[+-]?[0-9_]+)?)\Z", re.IGNORECASE)


def quote(value: Any) -> str:
    """The value in Hydra's override grammar, quoted as Hydra itself does it.

    Takes None, booleans, numbers, strings, and lists and dicts of these. Raises ValueError for
    anything else, and for a dict key that the grammar has no spelling for.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _quote_string(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(quote(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_dict_key(key)}:{quote(item)}' for key, item in value.items())}}}"
    raise ValueError(f"a value of type {type(value).__name__} can't be written as a Hydra override")


def literal(text: str) -> str:
    """The text written such that it becomes what it is now where OmegaConf resolves interpolations."""
    # Backslashes count only in front of an interpolation: there two stand for one.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def axis(key: str, values: Sequence[Any]) -> str:
    """The override that sweeps `key` over the values: `key=v1,v2`."""
    return f"{key}={','.join(quote(value) for value in values)}"


def key_and_value(override: str) -> tuple[str, str]:
    """The key of an override without its `+` or `++`, and its value as plain text.

    `lr=0.1` is `("lr", "0.1")`, `+name='a b'` is `("name", "a b")`; a deletion `~x` keeps its
    tilde and has an empty value.
    """
    key, _, value = override.partition("=")
    return key.strip().lstrip("+"), unquote(value.strip())


def unquote(value: str) -> str:
    """The text of a quoted string; any other value as it stands."""
    mark = value[:1]
    if mark not in ("'", '"') or len(value) < 2 or value[-1] != mark:
        return value
    # Backslashes count only in front of a quote or of the end: pairs are one, a single one is the escape.
    return re.sub(rf"(\\+)({mark}|\Z)", _unescaped, value[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    return "\\" * (len(match[1]) // 2) + match[2]


def _quote_string(text: str) -> str:
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _dict_key(key: Any) -> str:
    if key is None or isinstance(key, (bool, int, float)):
        return quote(key)
    if not isinstance(key, str) or not _KEY_PLAIN.match(key) or key.lower() in _WORDS or _NUMBER.match(key):
        raise ValueError(f"{key!r} as a key of a dict value can't be written as a Hydra override")
    return _KEY_ESCAPES.sub(r"\\\g<0>", key)
