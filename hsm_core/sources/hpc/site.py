"""Where a cluster's scheduler is: on this machine, or on a login node that is reached by SSH.

Programs run there, and there are the files that jobs have to do with. Both kinds of sites do the same by the same code
(`hsm_core.remote.site`), so nothing else in this package knows the difference. The other kind is in
`hsm_core.sources.hpc.login_node`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from hsm_core.exceptions import SourceError, Unavailable
from hsm_core.remote import site

T = TypeVar("T")
Call = tuple[str, Mapping[str, Any]]

ANSWER = 60.0
"""seconds for what is no program of others"""


class Lost(Unavailable):
    """The site can't be reached, and nobody knows how much was done there of what was asked for last."""


class Ran(msgspec.Struct, frozen=True):
    """How a program ended."""

    code: int | None
    """None: it was killed when its time was over"""
    out: str
    err: str


class Left(msgspec.Struct, frozen=True):
    """What an element has left, see `hsm_core.remote.batch.left`."""

    record: Any
    wrong: str
    begun: bool
    said: str | None


class Found(msgspec.Struct, frozen=True):
    """A batch that is there already, see `hsm_core.remote.batch.find`."""

    folder: str
    attempts: list[str]
    resources: dict[str, Any]
    job: str | None
    settled: bool


class Mark(msgspec.Struct, frozen=True):
    """What an element says when its attempt has begun."""

    host: str
    pid: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
    output_dir: str | None
    """None: that of a pilot, which has none"""
    missing: list[str] = []
    gpus: list[str] | None = None
    memory: float | None = None
    """MiB that the scheduler gave to its job by its own word"""


class _Facts(msgspec.Struct, frozen=True):
    environ: dict[str, str]
    user: str


class Site(ABC):
    """All methods raise Lost where the site can't be reached, and SourceError where that will not change by itself.

    `environ` and `user` are known after `start`. One thread uses a site, but for `run`.
    """

    lag = 0.0
    """seconds between two looks at files"""
    environ: Mapping[str, str]
    user: str

    @abstractmethod
    def ask(self, calls: Sequence[Call], patience: float) -> list[Any]:
        """The answers to calls of `hsm_core.remote.site`."""

    def start(self) -> None:
        """Learn what programs there find."""
        facts = self._value("facts", {}, _Facts)
        self.environ, self.user = facts.environ, facts.user

    def missing(self, programs: Sequence[str]) -> list[str]:
        """Those that are not on PATH."""
        return self._value("missing", {"programs": programs}, list[str])

    def run(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> Ran:
        """Run a program in this environment. Raises Unavailable where it can't be started."""
        gone: dict[str, str | None] = dict.fromkeys(self.environ.keys() - environ.keys())
        changes = gone | {name: value for name, value in environ.items() if self.environ.get(name) != value}
        try:
            return self._value("run", {"argv": argv, "changes": changes, "timeout": timeout}, Ran, timeout + ANSWER)
        except OSError as e:
            raise Unavailable(f"{argv[0]} can't be run: {e.strerror}") from e

    def put(self, path: str, text: str) -> None:
        """Put a file in place, whole. Raises OSError."""
        self._value("put", {"path": path, "text": text}, None)

    def write(self, folder: str, batch: Mapping[str, Any]) -> None:
        """Make the folder of a batch. Raises OSError; then nothing is left of it."""
        self._value("write", {"folder": folder, "batch": batch}, None)

    def submitted(self, folder: str, job: str) -> None:
        """Keep the scheduler's id of a batch. Raises OSError."""
        self._value("submitted", {"folder": folder, "job": job}, None)

    def void(self, folder: str) -> None:
        """Let no element of a batch run that may still come. Raises OSError."""
        self._value("void", {"folder": folder}, None)

    def remove(self, folder: str) -> None:
        """Remove the folder of a batch."""
        self._value("remove", {"folder": folder}, None)

    def call_off(self, elements: Iterable[str]) -> None:
        """Have the starts of elements end that still live; of each the path of its marks."""
        self._values([("call_off", {"marks": marks}) for marks in elements], None)

    def absent(self, paths: Sequence[str]) -> list[str]:
        """Those of which nothing is there."""
        return self._value("absent", {"paths": paths}, list[str]) if paths else []

    def find(self, top: str, records: str) -> list[Found]:
        """The batches that are there. Raises OSError."""
        return self._value("find", {"top": top, "records": records}, list[Found])

    def news(self, known: Mapping[str, int]) -> dict[str, list[str]]:
        """The names of marks in folders that have another number of them than is known. Raises OSError."""
        return self._value("news", {"known": known}, dict[str, list[str]])

    def begun(self, marks: Iterable[str]) -> list[Mark | None]:
        """What each of these marks says; None of one that can't be read."""
        return self._values([("begun", {"path": path}) for path in marks], Mark | None)

    def left(self, elements: Iterable[tuple[str, str, str | None]]) -> list[Left]:
        """What elements have left: of each the paths of its record, its marks and its job's output. Raises OSError."""
        asked = [("left", {"record": record, "marks": marks, "log": log}) for record, marks, log in elements]
        return self._values(asked, Left)

    def _value(self, name: str, arguments: Mapping[str, Any], kind: type[T] | None, patience: float = ANSWER) -> T:
        value: T = self._values([(name, arguments)], kind, patience)[0]
        return value

    def _values(self, calls: Sequence[Call], kind: Any, patience: float = ANSWER) -> list[Any]:
        """What was answered, each of a type. Raises OSError for the first call that failed."""
        values = []
        for told in self.ask(calls, patience) if calls else ():
            try:
                if "errno" in told:
                    raise OSError(msgspec.convert(told["errno"], int), msgspec.convert(told["why"], str))
                values.append(msgspec.convert(told["value"], kind))
            except (msgspec.ValidationError, TypeError, LookupError) as e:
                raise SourceError(f"what our program there answers can't be understood: {e}") from e
        return values


class Here(Site):
    """This machine."""

    def ask(self, calls: Sequence[Call], patience: float) -> list[Any]:
        return [site.answer(name, arguments) for name, arguments in calls]
