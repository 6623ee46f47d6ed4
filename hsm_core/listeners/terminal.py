"""Writing to the launcher's terminal: plain lines, or lines above one live line at the bottom."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class PlainLines:
    """Lines one below the other, for pipes, files and terminals that know no cursor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def open(self) -> None:
        """Nothing to prepare."""

    def say(self, text: str, level: int) -> None:
        """Write one text, which may have several lines. Raises OSError."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held open; the stream belongs to the caller."""


class LiveLine:
    """Lines above one that is drawn again four times a second from `status`, until `close`.

    While it is shown, whatever this process prints to the same terminal goes above the line too:
    by `print`, and by those handlers of `logging` that hold on to the original stream.
    """

    def __init__(self, stream: TextIO, status: Callable[[], str]) -> None:
        self._stream = stream
        self._status = status
        self._live: Live | None = None
        self._moved: list[tuple[logging.StreamHandler[Any], TextIO]] = []

    def open(self) -> None:
        """The live line is shown; idempotent."""
        if self._live is None:
            self._live = self._start()

    def say(self, text: str, level: int) -> None:
        """Write one text, which may have several lines, above the live line, once `open`. Raises OSError."""
        from rich.text import Text

        assert self._live is not None, "said before open"
        self._live.console.print(Text(text, style=_STYLES.get(level, "")), soft_wrap=True)

    def close(self) -> None:
        """The live line is gone; what was redirected is as it was. Idempotent."""
        if self._live is None:
            return
        live, self._live = self._live, None
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        live.stop()

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        # Output that goes elsewhere, to a file say, must go on doing so.
        stdout, stderr = sys.stdout, sys.stderr
        live = Live(
            console=console,
            get_renderable=self._line,
            transient=True,
            redirect_stdout=stdout.isatty(),
            redirect_stderr=stderr.isatty(),
        )
        live.start()
        # Were the process to end at once, the terminal must not be left without a cursor.
        console.show_cursor(True)
        for handler in _stream_handlers():
            redirected = {stdout: sys.stdout, stderr: sys.stderr}.get(handler.stream, handler.stream)
            if redirected is not handler.stream:
                self._moved.append((handler, handler.stream))
                handler.setStream(redirected)
        return live

    def _line(self) -> Text:
        from rich.text import Text

        return Text(self._status(), style="bold", no_wrap=True, overflow="ellipsis")


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    """Every handler of `logging` that writes to a stream of ours, not to a file."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler
