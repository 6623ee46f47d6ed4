"""The audit of a sweep: what its journal tells, held against what is on the disk and what still runs.

It is for a sweep on which no launcher works. `judge` decides, and does no I/O; `read_account` and
`gather` bring it what it decides about.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hsm_core import events as ev
from hsm_core.debris import half_written
from hsm_core.exceptions import SweepBusy
from hsm_core.journal import entries, replay
from hsm_core.owner import OwnerInfo, current
from hsm_core.records import outcome_of, read_record
from hsm_core.remote import marks
from hsm_core.remote.names import task_name
from hsm_core.resume import is_away
from hsm_core.state import SweepState, TaskRecord, apply, is_current
from hsm_core.summary import LAUNCHER_GONE, condition
from hsm_core.task import Outcome, attempt_id


@dataclass(frozen=True)
class Finding:
    """Something that is not as it must be. `where`: a task, a file, a process or `journal`."""

    kind: str
    where: str
    problem: str
    advice: str


@dataclass
class Account:
    """What the journal tells. Attempts are named by their ids."""

    state: SweepState = field(default_factory=SweepState)
    torn: bool = False
    """its last line is unfinished"""
    submitted: set[str] = field(default_factory=set)
    ended: dict[str, Outcome] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    accepted: dict[int, list[str]] = field(default_factory=dict)
    """of each task the attempts that ended it for good, since it was last reopened"""
    refused: list[str] = field(default_factory=list)
    """attempts that are told to have ended when they were not the current ones"""

    def take(self, event: ev.Event, at: float) -> None:
        """Go one line on; `at` in seconds since 1970."""
        if isinstance(event, ev.AttemptSubmitted):
            self.submitted.add(attempt_id(event.task, event.attempt, event.epoch))
        elif isinstance(event, ev.ResultStale):
            self.stale.add(attempt_id(event.task, event.attempt, event.epoch))
        elif isinstance(event, ev.TaskReopened):
            self.accepted.pop(event.task, None)
        elif isinstance(event, ev.AttemptFinished):
            self._take_end(event)
        apply(self.state, event, at)

    def _take_end(self, event: ev.AttemptFinished) -> None:
        attempt = attempt_id(event.task, event.attempt, event.epoch)
        if not is_current(self.state, event):
            self.refused.append(attempt)
        else:
            self.ended[attempt] = event.outcome
        if event.outcome.completed or event.retry_in is None:
            self.accepted.setdefault(event.task, []).append(attempt)


@dataclass(frozen=True)
class Evidence:
    """What is there beside the journal."""

    records: Mapping[str, Outcome | None]
    """what the result record of each attempt says, None where it can't be read"""
    folders: frozenset[str]
    """the tasks' output directories that exist"""
    half_written: tuple[str, ...]
    """files and folders, relative to the sweep directory, which only a launcher at work may have"""
    processes: Mapping[int, str]
    """processes of the sweep, by pid, with their command lines"""
    owner: OwnerInfo | None


def read_account(journal: Path) -> Account:
    """Read a journal to its end. Raises JournalError as `hsm_core.journal.replay` does."""
    account = Account(torn=replay(journal).torn)
    for entry in entries(journal):
        if entry.event is not None:
            account.take(entry.event, entry.at)
    return account


def gather(directory: Path, state: SweepState) -> Evidence:
    """Look at a sweep's directory and processes. Raises SweepBusy while a launcher of this host works on it."""
    hsm = directory / ".hsm"
    owner = current(hsm)
    if owner is not None and owner.alive and not owner.released:
        raise SweepBusy(
            f"{state.id} is run by pid {owner.pid}: what it holds changes under an audit. "
            f"Follow it with `hsm monitor watch {state.id}`, and audit it when it has ended."
        )
    outputs = {t.attempt.output_dir for t in state.tasks.values() if t.attempt is not None and t.attempt.output_dir}
    return Evidence(
        records={path.stem: _told_by(hsm / "results", path.stem) for path in (hsm / "results").glob("*.json")},
        folders=frozenset(folder for folder in outputs if os.path.isdir(folder)),
        half_written=tuple(sorted(str(path.relative_to(directory)) for path in half_written(directory))),
        processes={pid: _command(pid) for pid in marks.marked(f"{directory}:")},
        owner=owner,
    )


def judge(account: Account, evidence: Evidence, directory: Path) -> list[Finding]:
    """Everything that is not as it must be, in the order of the tasks; empty for a sweep that is whole.

    Tasks that wait for a launcher to come are as they must be.
    """
    findings = [*_of_the_journal(account, evidence.owner)]
    for _, task in sorted(account.state.tasks.items()):
        findings += _of_a_task(task, account, evidence)
    findings += _of_records(account, evidence)
    go_on = f"hsm complete {account.state.id}"
    for pid, command in sorted(evidence.processes.items()):
        advice = f"Look what it does; end it with: kill {pid}. `{go_on}` ends it too."
        findings.append(Finding("process", f"pid {pid}", f"it belongs to the sweep and still runs: {command}", advice))
    for name in evidence.half_written:
        advice = f"Nobody reads it. `{go_on}` removes it, or: rm -r {shlex.quote(str(directory / name))}"
        findings.append(Finding("half-written", name, "a killed process left it half-written", advice))
    return findings


def _of_the_journal(account: Account, owner: OwnerInfo | None) -> Iterable[Finding]:
    state, go_on = account.state, f"Go on with: hsm complete {account.state.id}"
    if account.torn:
        words = "its last line is unfinished: its launcher was killed, or the disk was full"
        yield Finding("torn", "journal", words, f"{go_on}. The good lines are kept, the rest is put aside.")
    if condition(state, owner) == LAUNCHER_GONE:
        yield Finding("no end", "journal", "its launcher is gone without a last word", go_on)
    elif owner is not None and not owner.released and owner.alive is False:
        words = "its launcher was killed while it closed the sweep: reports may be missing"
        yield Finding("not closed", "journal", words, f"hsm complete {state.id} closes it.")
    if owner is not None and not owner.released and owner.alive is None:
        who = f"pid {owner.pid} on {owner.host}" if owner.host else "a launcher that was just starting"
        advice = "Look there for it; what is found here may be its work. If it is gone: hsm complete --takeover"
        yield Finding(
            "owner", "journal", f"it is held by {who}, and nobody can tell from here whether that lives", advice
        )
    for task, attempts in sorted(account.accepted.items()):
        if len(attempts) > 1:
            words = f"accepted {len(attempts)} times: {', '.join(attempts)}"
            yield Finding("accepted twice", task_name(task), words, "This is a fault of hsm. Please report it.")
    for attempt in account.refused:
        words = "the journal tells its end, though it was not the current attempt then"
        yield Finding("refused", attempt, words, "The line is ignored. This is a fault of hsm. Please report it.")


def _of_a_task(task: TaskRecord, account: Account, evidence: Evidence) -> Iterable[Finding]:
    if task.attempt is None:
        return
    name, attempt = task_name(task.index), attempt_id(task.index, task.attempt.number, task.attempt.epoch)
    if task.state.active:
        left = "it left a result, which the journal does not tell" if attempt in evidence.records else "nor a result"
        words = f"attempt {task.attempt.number} on {task.attempt.source} has no end in the journal; {left}"
        yield Finding("active", name, words, f"hsm complete {account.state.id} settles it.")
    outcome = task.outcome
    if outcome is None:
        return
    if outcome.record is not None:
        yield from _of_its_record(name, outcome, evidence.records.get(Path(outcome.record).stem, ...))
    if is_away(account.state, task):
        words = f"what it left is on {task.attempt.source} and not home yet"
        yield Finding("not home", name, words, f"hsm complete {account.state.id} brings it.")
    elif outcome.completed and (outcome.output_dir is None or outcome.output_dir not in evidence.folders):
        words = f"it completed, but its output directory is gone: {outcome.output_dir}"
        yield Finding("no output", name, words, "Restore it from a backup, or run the point again in another sweep.")


def _of_its_record(name: str, told: Outcome, found: object) -> Iterable[Finding]:
    restore = f"The journal's word stands. Restore {told.record} from a backup if its return value is needed."
    if found is ...:
        yield Finding("no record", name, f"its result record {told.record} is gone", restore)
    elif not isinstance(found, Outcome):
        yield Finding("bad record", name, f"its result record {told.record} can't be read", restore)
    elif (found.status, found.cause) != (told.status, told.cause):
        words = f"its result record says {_words(found)}, the journal {_words(told)}"
        yield Finding("other record", name, words, restore)


def _of_records(account: Account, evidence: Evidence) -> Iterable[Finding]:
    active = {attempt_id(t.index, t.attempt.number, t.attempt.epoch) for t in account.state.tasks.values() if t.attempt}
    active -= account.ended.keys()
    for attempt in sorted(evidence.records.keys() - account.stale - active):
        record, found, told = f".hsm/results/{attempt}.json", evidence.records[attempt], account.ended.get(attempt)
        if attempt not in account.submitted:
            words = "a result record of an attempt that the journal does not know"
            advice = "It counts for nothing. Was the journal put back from a backup?"
            yield Finding("unknown record", record, words, advice)
        elif (told is None or told.record is None) and found is not None and found.record is not None:
            words = "a result record that came after its attempt was given up"
            yield Finding("late record", record, words, "It counts for nothing: a later attempt of the task does.")


def _words(outcome: Outcome) -> str:
    return outcome.status.value if outcome.cause is None else f"{outcome.status.value} ({outcome.cause.value})"


def _told_by(records: Path, attempt: str) -> Outcome | None:
    try:
        return outcome_of(read_record(records, attempt), attempt)
    except ValueError:
        return None


def _command(pid: int) -> str:
    return " ".join(marks.command(pid)) or "(ended while it was looked at)"
