"""The starts of one element: a scheduler may start it again, elsewhere, while nobody knows whether the last one lives.

Each start makes a mark, `<attempt>.<number>.begun`. It is empty until the start is called off, by a later one or by the
launcher: what finds that ends, and leaves no result. So no two of them work in one directory, as far as both see the
disk. A mark is opened for each look: at an open a shared disk shows what others wrote, while it may remember for a
minute that a file is not there (nfs(5), DATA AND METADATA COHERENCE).
"""

from __future__ import annotations

import os
import time
from itertools import count

LOOK = 10.0
"""seconds between two looks whether a start was called off"""
PATIENCE = 3 * LOOK
"""seconds after which a start that was called off has ended, if it can still write where its results go"""
_PAUSE = 0.2
"""seconds between two looks whether an earlier start has ended"""


def begin(path: str, number: int | None, *, again: bool) -> int:
    """Begin the start with this number, 0 for the first; returns the number.

    `path`: of the marks, up to the attempt; None: the scheduler does not tell the number, so it is the next one. Raises
    FileExistsError where that start was begun before, or it is not the first and `again` is false.
    """
    number = _next(path) if number is None else number
    if number and not again:
        raise FileExistsError
    os.close(os.open(_begun(path, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return number


def _next(path: str) -> int:
    return next(number for number in count() if not os.path.exists(_begun(path, number)))


def take_over(path: str, number: int) -> None:
    """Call off all starts before this one; returns once they have ended, or can't do harm any more."""
    earlier = [n for n in range(number) if os.path.exists(_begun(path, n)) and not os.path.exists(_ended(path, n))]
    for n in earlier:
        call_off(_begun(path, n))
    deadline = time.monotonic() + PATIENCE
    while not all(os.path.exists(_ended(path, n)) for n in earlier) and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def call_off(mark: str | os.PathLike[str]) -> None:
    """Have the start end that made this mark. Raises OSError."""
    with open(mark, "a", encoding="utf-8") as file:
        file.write("called off\n")


def called_off(path: str, number: int) -> bool:
    """Whether this start is to end: it was called off, or its batch is no more. A disk that fails tells nothing."""
    try:
        with open(_begun(path, number), encoding="utf-8") as file:
            return file.read(1) != ""
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _begun(path: str, number: int) -> str:
    return f"{path}.{number}.begun"


def _ended(path: str, number: int) -> str:
    return f"{path}.{number}.ended"
