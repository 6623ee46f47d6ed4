"""The log tree `logs/` of a sweep: its events in lines, together and per source.

    sweep_aggregated.log     every event, and where each task's own output is
    task_assignments.log     which source got which attempt of which task
    source_utilization.log   active tasks of each source over time
    health_status.log        sources that start, go down, come back or are disabled
    sources/<name>.log       what concerns one source

What tasks print stays in the `stdout.log` and `stderr.log` of their own directories: it may be
gigabytes. A resumed sweep goes on in the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from hsm_core import events as ev
from hsm_core.config import LoggingConfig
from hsm_core.event_text import Line, level_number, line
from hsm_core.remote.names import task_name
from hsm_core.state import SweepState
from hsm_core.text import file_name, printable, stamp

_HEALTH = (ev.SourceStarted, ev.SourceDown, ev.SourceUp, ev.SourceDisabled)
_USE = (ev.AttemptSubmitted, ev.AttemptStarted, ev.AttemptFinished)


class LogTree:
    """Writes the log tree. Every line is on disk, as far as the system goes, when the call returns."""

    def __init__(self, directory: Path, logging: LoggingConfig) -> None:
        self._folder = directory / "logs"
        self._config = logging
        self._threshold = level_number(logging.level)
        self._files: dict[str, TextIO] = {}
        self._use: dict[str, _Use] = {}

    def __call__(self, event: ev.Event, state: SweepState, at: float) -> None:
        if not self._config.file_logging:
            return
        told = line(event, state)
        if told is not None:
            self._log(told, at)
            if isinstance(event, _HEALTH):
                self._write("health_status.log", _text(told, at))
        if isinstance(event, ev.AttemptSubmitted):
            what = f"{task_name(event.task)} -> {printable(event.source)} (attempt {event.attempt})"
            self._write("task_assignments.log", f"[{stamp(at)}] {what}")
        if isinstance(event, _USE):
            self._note_use(event.source, state, at)
        for use in self._use.values():
            self._report_use(use, at)

    def close(self) -> None:
        """Writes the last utilisation of each source and closes the files."""
        for use in self._use.values():
            self._report_use(use, float("inf"))
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _log(self, told: Line, at: float) -> None:
        if told.level < self._threshold:
            return
        text = _text(told, at)
        if told.output_dir is not None:
            text = f"{text} [output in {told.output_dir}]"
        if self._config.aggregated_logs:
            self._write("sweep_aggregated.log", text)
        if self._config.source_specific_logs and told.source is not None:
            self._write(f"sources/{file_name(told.source)}.log", text)

    def _note_use(self, name: str, state: SweepState, at: float) -> None:
        source = state.sources.get(name)
        use = self._use.setdefault(name, _Use())
        if source is None or source.active == use.active:
            return
        share = f" ({source.active / source.slots:.0%})" if source.slots else ""
        use.active = source.active
        use.text = f"[{stamp(at)}] {printable(name)} {source.active}/{source.slots}{share}"

    def _report_use(self, use: _Use, at: float) -> None:
        # A clock that was set back must not silence the log until it has caught up.
        if use.active != use.told and abs(at - use.told_at) >= 1.0:
            self._write("source_utilization.log", use.text)
            use.told, use.told_at = use.active, at

    def _write(self, name: str, text: str) -> None:
        file = self._files.get(name)
        if file is None:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115 - see close
            self._files[name] = file
        file.write(text + "\n")


class _Use:
    """How many tasks are active on a source, and what was last written of it."""

    def __init__(self) -> None:
        self.active = 0
        self.text = ""
        self.told = 0
        self.told_at = float("-inf")


def _text(told: Line, at: float) -> str:
    return f"[{stamp(at)}] {told.level_name} - {told.text}"
