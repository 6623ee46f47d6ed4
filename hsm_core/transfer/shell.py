"""What transfers need of a connection: to start scripts there, and to talk to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import paramiko


class Input(Protocol):
    """Standard input of a program over there."""

    def write(self, data: bytes, /) -> object:
        """Send all of it; blocks while the program does not read. Raises Unavailable or OSError once it can't."""

    def close(self) -> None:
        """End the input."""


class Output(Protocol):
    """Standard output of a program over there."""

    def read(self, size: int, /) -> bytes:
        """What is there, at most `size` bytes; waits for the first of them. Empty at the end."""


class Program(Protocol):
    """A program that runs over there."""

    @property
    def stdin(self) -> Input: ...

    @property
    def stdout(self) -> Output: ...

    def errors(self) -> str:
        """The end of what it wrote to its standard error."""

    def wait(self, timeout: float | None) -> int:
        """Its exit status. Raises Unavailable where the connection is lost or the time is over."""

    def close(self) -> None:
        """Be done with it, whether it has ended or not; idempotent."""


class Shell(Protocol):
    """A connection, as far as transfers need it."""

    @property
    def address(self) -> str:
        """The host in words for people."""

    def run(self, script: str) -> Program:
        """Start a POSIX shell script over there. Raises Unavailable."""


class Files(Shell, Protocol):
    """A connection that has SFTP too."""

    def sftp(self) -> paramiko.SFTPClient:
        """A session of SFTP. Raises Unavailable."""
