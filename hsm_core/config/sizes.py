"""Sizes as people and schedulers write them: `512MB`, `1.5GiB`, `64G`."""

from __future__ import annotations

import math
import re

from hsm_core.config.types import shown

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:I?B)?|(B))?", re.IGNORECASE | re.ASCII)
_MEBIBYTES = {"B": 2.0**-20, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}


def mebibytes(size: str | float) -> float:
    """The MiB (2**20 bytes) a size stands for; more than 0 and finite.

    Units are B, K, M, G and T, the latter also with B or iB behind, in any case. All are binary, `64GB` is `64GiB`,
    and a bare number counts MiB: so it is with Slurm's --mem (sbatch(1)), and PBS's `gb` is 1024**3 bytes too
    (pbs_resources(7B)).

    Raises ValueError, in words for people, where the text is no size or the size is 0.
    """
    match = None if isinstance(size, bool) else _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ValueError(f"{shown(size)} is no size; write for example 512MB, 1.5GB or 64GiB")
    number, unit, byte = match.groups()
    value = float(number) * _MEBIBYTES[(unit or byte or "M").upper()]
    if not 0 < value < math.inf:
        raise ValueError(f"{shown(size)} is no size that anything can have; it must be more than 0")
    return value


def limit_in_bytes(size: str | int) -> int | None:
    """The bytes a limit stands for, None for `0`: no limit. Raises ValueError as `mebibytes` does."""
    return None if str(size).strip() == "0" else int(mebibytes(size) * 2**20)
