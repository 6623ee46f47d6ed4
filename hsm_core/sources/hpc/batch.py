"""A batch: attempts that go to the scheduler as one job array, and its folder at the scheduler's site.

The folder is below `.hsm/hpc/<source>` of the sweep and is named by the batch's token, which stands in the name of the
job too, so that a launcher that comes later finds the job whatever happened to this one.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hsm_core.sources.hpc.resources import Resources, restored
from hsm_core.sources.hpc.site import Found

PREFIX = "hsm-"
"""what tokens begin with"""


@dataclass
class Batch:
    folder: str
    """at the site"""
    attempts: Sequence[str]
    """their ids, by the number of the element"""
    resources: Resources
    """what each of them asks for"""
    job: str | None = None
    """the scheduler's id of the array; None: not known to be submitted"""

    @property
    def token(self) -> str:
        return os.path.basename(self.folder)

    def marks(self, attempt: str) -> str:
        """The path of the marks of an element, up to the number of its start."""
        return os.path.join(self.folder, attempt)


def new(top: str, attempts: Sequence[str], resources: Resources) -> Batch:
    """A batch in a folder below `top` that is still to be written."""
    return Batch(os.path.join(top, f"{PREFIX}{secrets.token_hex(6)}"), attempts, resources)


def earlier(found: Found) -> Batch:
    """One that an earlier launcher has written. Raises msgspec.ValidationError where nobody can have written that."""
    return Batch(found.folder, found.attempts, restored(found.resources), found.job)


@dataclass(frozen=True)
class Sign:
    """The name of a file by which an element tells that its attempt has started, or that it ends."""

    attempt: str
    start: int
    """which start of the element made it"""
    of_end: bool
    name: str


def signs(names: Iterable[str]) -> list[Sign]:
    """Those among these names of files, in the order in which the files were made."""
    found = [re.fullmatch(r"(.+)\.(\d{1,9})\.(started|ended)", name, re.ASCII) for name in names]
    made = [Sign(m[1], int(m[2]), m[3] == "ended", m[0]) for m in found if m is not None]
    return sorted(made, key=lambda sign: (sign.start, sign.of_end))
