"""The result record of an attempt as a file: put in place whole, read with care."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

FORMAT = 1
LIMIT = 2 << 20
"""bytes a record may have; what goes into one is cut to half of that (`hsm_core.remote.describe`)"""


def put(path: str, record: Mapping[str, Any]) -> None:
    """Put a result record in place: complete and on disk, or not at all.

    Raises OSError where that fails; no file is left then.
    """
    with whole(path) as f:
        f.write(json.dumps(record).encode())


@contextlib.contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """A file of mode 0600 that is put in place when the block ends: complete and on disk, or not at all.

    Raises OSError where that fails; no file is left then.
    """
    temporary = f"{path}.tmp"
    try:
        with open(create(temporary), "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.rename(temporary, path)
    except OSError:
        if os.path.isfile(temporary):
            os.unlink(temporary)
        raise


def create(path: str) -> int:
    """A new file of mode 0600, open for writing, in place of whatever had its name. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def read(path: str | os.PathLike[str]) -> Any:
    """The JSON of a record; a task may have left anything in its place, and nothing of that is followed or waited for.

    Raises FileNotFoundError where there is nothing, ValueError for all that is no record.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise ValueError(f"it can't be read: {e.strerror}") from e
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        with open(descriptor, "rb", closefd=False) as f:
            data = f.read(LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(data) > LIMIT:
        raise ValueError(f"it is larger than {LIMIT >> 20} MiB")
    try:
        return json.loads(data)
    except RecursionError as e:
        raise ValueError("no JSON: it is nested too deep") from e
    except ValueError as e:
        raise ValueError(f"no JSON: {e}") from e
