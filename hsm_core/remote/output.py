"""What a task prints, kept below a limit: the beginning and the latest of it stay, the middle goes.

The task writes to its files itself, so nothing here stands in its way; a file that has become too long is cut where
it lies. Since tasks append, what they write next comes behind the cut.
"""

from __future__ import annotations

import os
import stat

STREAMS = ("stdout.log", "stderr.log")
TAIL = 64 << 10
"""bytes of the latest output that a cut keeps, or about a quarter of the limit where that is less"""
_LOOKS = 10
"""times that a file which grows while it is cut is looked at again"""


class Output:
    """The output files of one attempt, from the moment its worker has made them."""

    def __init__(self, folder: str, limit: int) -> None:
        self._limit = limit
        self._files: list[int] = []
        for name in STREAMS:
            try:
                # Held open, so that a file which the task puts under that name later is never touched.
                file = os.open(os.path.join(folder, name), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # the task took it away at once: there is nothing to keep short
            self._files.append(file)

    def check(self) -> None:
        """Cut what is too long. A file that can't be cut now is looked at again the next time."""
        for file in self._files:
            try:
                found = os.fstat(file)
                if found.st_size > self._limit and stat.S_ISREG(found.st_mode):
                    cut(file, found.st_size, self._limit)
            except OSError:
                continue

    def close(self) -> None:
        """A last check; afterwards nothing is held open."""
        self.check()
        while self._files:
            os.close(self._files.pop())


def cut(file: int, size: int, limit: int) -> None:
    """Cut a file of `size` bytes to its first half `limit`, a line that says so, and its latest lines.

    Everything is written where it will stay before the rest is cut off, so readers and a writer that goes on
    appending find the file whole at every moment. What is appended in the very moment of the cut is lost; what came
    while the cut was prepared is looked at again, so that the end of a task is hardly ever among it.
    """
    kept = limit // 2
    mark = f"\n[hsm: output truncated at {kept} bytes; what came between is left out]\n".encode()
    # Never what is written here: that ends below three quarters of the limit.
    want = min(TAIL, max(0, limit // 4 - len(mark)))
    for _ in range(_LOOKS):
        latest = os.pread(file, want, size - want)
        # The first line is there in part only, unless it is the only one.
        latest = latest[latest.find(b"\n", 0, len(latest) - 1) + 1 :]
        end = kept
        for piece in (mark, latest):
            end += os.pwrite(file, piece, end)
        before, size = size, os.fstat(file).st_size
        if size == before:
            break
    os.ftruncate(file, end)
