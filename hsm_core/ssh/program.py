"""A program that runs on a host, over a channel of a connection."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

from hsm_core.exceptions import Unavailable
from hsm_core.text import printable

if TYPE_CHECKING:
    import paramiko

START = 30.0
"""seconds that a script may take to begin: a slow profile of the user's comes before it"""
NOISE_LIMIT = 1 << 20
"""bytes that a profile may print before the script begins"""
ERRORS_KEPT = 64 << 10
"""bytes of standard error that are kept, the last ones"""
CHUNK = 64 << 10

# Every login shell understands this one line. The script is not in it: it comes over standard input, so nothing of it
# needs quoting and `ps` does not show it.
_COMMAND = """exec /bin/sh -c 'eval "$(PATH=/usr/bin:/bin:$PATH dd bs=1 count={count} 2>/dev/null)"'"""


class Input:
    """Standard input of a program, as a file that is only written."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self.closed = False

    def write(self, data: bytes) -> int:
        """Hand over all of it; waits while the host takes no more. Raises BrokenPipeError once nobody reads it."""
        if self.closed:
            raise ValueError("write to closed file")
        try:
            # In pieces: paramiko copies all that is left after each of its packets.
            for start in range(0, len(data), CHUNK):
                self._channel.sendall(data[start : start + CHUNK])
        except (OSError, EOFError) as e:
            raise BrokenPipeError(f"the program has ended, or the connection was lost: {e}") from e
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Tell the program that there is no more."""
        self.closed = True
        with contextlib.suppress(OSError, EOFError):  # of a program that has ended
            self._channel.shutdown_write()


class Output:
    """Standard output of a program, as a file that is only read."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._read_ahead = b""
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are some; none at the end, or when the connection is lost."""
        if self._read_ahead:
            ahead, self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
            return ahead
        data: bytes = self._channel.recv(size)
        return data

    def readline(self, limit: int) -> bytes:
        """One line with its end, or `limit` bytes of it, or what there is at the end."""
        parts = []
        room = limit
        while room > 0:
            data = self._read_ahead or self._channel.recv(CHUNK)
            end = data.find(b"\n", 0, room) + 1 or min(len(data), room)
            parts.append(data[:end])
            self._read_ahead = data[end:]
            room -= end
            if not data or data[end - 1 : end] == b"\n":
                break
        return b"".join(parts)

    def close(self) -> None:
        self.closed = True

    def skip_to(self, marker: bytes, deadline: float) -> bytes:
        """Throw away what comes up to the end of `marker`; returns that.

        Raises TimeoutError at the deadline (of `time.monotonic`), EOFError where the marker never comes, and
        OverflowError where too much comes before it; what came so far is their argument.
        """
        found = bytearray()
        try:
            while marker not in found:
                if len(found) > NOISE_LIMIT:
                    raise OverflowError(bytes(found))
                self._channel.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    data = self._channel.recv(CHUNK)
                except TimeoutError:
                    raise TimeoutError(bytes(found)) from None
                if not data:
                    raise EOFError(bytes(found))
                found += data
        finally:
            self._channel.settimeout(None)
        noise, _, self._read_ahead = bytes(found).partition(marker)
        return noise


class Program:
    """A script that runs on a host as a POSIX shell's, whatever the login shell is.

    What the user's profile prints before it is not part of its output.
    """

    def __init__(self, channel: paramiko.Channel, where: str) -> None:
        self.channel = channel
        self._where = where
        self._marker = f"hsm-{secrets.token_hex(16)}\n".encode()
        self._errors = bytearray()
        self._began = False
        self.stdin = Input(channel)
        self.stdout = Output(channel)
        self._drain = threading.Thread(target=self._keep_errors, name="hsm-ssh-stderr", daemon=True)

    def start(self, script: str) -> None:
        """Send the script; returns once it runs. Raises Unavailable, with what came instead."""
        import paramiko

        word = self._marker.decode().strip()
        whole = f"printf '%s\\n' {word}; printf '%s\\n' {word} >&2\n{script}\n".encode(errors="surrogateescape")
        deadline = time.monotonic() + START
        try:
            self.channel.settimeout(START)
            self.channel.exec_command(_COMMAND.format(count=len(whole)))
            self._drain.start()
            self._send(whole)
            self.stdout.skip_to(self._marker, deadline)
        except TimeoutError as e:
            raise self._not_begun(f"did not begin within {START:g} s", e) from e
        except OverflowError as e:
            raise self._not_begun("did not begin", e) from e
        except EOFError as e:
            raise self._not_begun(f"did not begin{self._how_it_ended()}", e) from e
        except (paramiko.SSHException, OSError) as e:
            self.close()
            raise Unavailable(f"{self._where}: the connection was lost while a command was started: {e}") from e

    def _send(self, script: bytes) -> None:
        try:
            self.channel.sendall(script)
        except TimeoutError:
            raise
        except OSError:
            pass  # the shell has ended already, or the connection: what is read next tells which

    def _how_it_ended(self) -> str:
        code = self.channel.recv_exit_status()
        if code >= 0:
            return f"; the login shell ended with exit code {code}"
        return "; the connection was lost" if self._lost() else "; the login shell was killed"

    def _not_begun(self, what: str, error: Exception) -> Unavailable:
        """`error` has what came instead of the script's beginning."""
        self.close()
        noise = error.args[0] if error.args and isinstance(error.args[0], bytes) else b""
        said = printable((noise or bytes(self._errors)).decode(errors="replace").strip(), 300)
        came = f". It said: {said}" if said else ", and said nothing"
        return Unavailable(
            f"{self._where}: a command {what}{came}. "
            "Look at what the user's shell profile there does when it has no terminal (ssh HOST true)"
        )

    def _keep_errors(self) -> None:
        """Read standard error all the time: the program would be stuck otherwise, once the window is full."""
        marker = self._marker
        while True:
            try:
                data = self.channel.recv_stderr(CHUNK)
            except TimeoutError:
                continue  # the channel has one timeout for both outputs, and the beginning is waited for
            if not data:
                break
            self._errors += data
            if not self._began and marker in self._errors:
                del self._errors[: self._errors.index(marker) + len(marker)]
                self._began = True
            if len(self._errors) > ERRORS_KEPT:
                del self._errors[:-ERRORS_KEPT]

    def errors(self) -> str:
        """What the program wrote to its standard error, the last 64 KiB."""
        return bytes(self._errors).decode(errors="replace")

    def _lost(self) -> bool:
        """Whether a channel that closed without an exit status did so with the connection, or else by a signal."""
        if not self.channel.eof_received:
            return True
        # The transport closes its channels first when it ends, and then says that it is not active.
        transport = self.channel.get_transport()
        transport.join(0.2)
        return not transport.is_active()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of the program, -1 if it was ended by a signal.

        By then all of its standard error is known, unless something that it started still has that. Raises Unavailable
        when the connection is lost, or after `timeout` seconds.
        """
        if not self.channel.status_event.wait(timeout):
            raise Unavailable(f"{self._where}: a command did not end within {timeout:g} s")
        status: int = self.channel.recv_exit_status()
        if status < 0 and self._lost():
            raise Unavailable(f"{self._where}: the connection was lost while a command ran")
        self._drain.join(1.0)
        return status

    def close(self) -> None:
        """Let go of the program: its input and output are closed; idempotent."""
        self.stdin.closed = self.stdout.closed = True
        with contextlib.suppress(OSError, EOFError):  # of a connection that is lost
            self.channel.close()
