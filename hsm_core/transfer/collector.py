"""Bringing home what tasks on a host left: transferred into a mirror, held against manifests, published."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from hsm_core.remote import manifest
from hsm_core.remote.manifest import PARTIAL
from hsm_core.remote.record import create
from hsm_core.text import plural
from hsm_core.transfer import mirror
from hsm_core.transfer.parcels import Parcels
from hsm_core.transfer.rsync import Moved, at_home, scratch
from hsm_core.transfer.transfers import Transfers

RESULTS = ".hsm/results"


class Collector:
    """Collects from the sweep's directory on a host, `place`, into the sweep's `directory` here.

    `pickles`: whether pickled return values are brought too.
    """

    def __init__(
        self, transfers: Transfers, parcels: Parcels, source: str, place: str, directory: Path, *, pickles: bool
    ) -> None:
        self._transfers = transfers
        self._parcels = parcels
        self._source = source
        self._place = place
        self._directory = directory
        self._mirror = directory / ".hsm" / "incoming" / source
        self._pickles = pickles

    def collect(self, outputs: Mapping[str, str], ended: Set[str]) -> tuple[Sequence[str], Mapping[str, str]]:
        """Bring the output directories of these attempts: names below the sweep's directory, by attempt.

        Those that `ended` are complete here afterwards, but for what may not come, and for those of which a file did
        not come as it is there: both is returned, in words. Raises Unavailable and SourceError.
        """
        came, skipped = self._collect_parcels({a: name for a, name in outputs.items() if a in ended})
        rest = {attempt: name for attempt, name in outputs.items() if attempt not in came}
        if not rest:
            return skipped, {}
        also_skipped, late = self._collect_by_transfer(rest, ended - came)
        return [*skipped, *also_skipped], late

    def _collect_parcels(self, outputs: Mapping[str, str]) -> tuple[Set[str], Sequence[str]]:
        """Bring the light ones of which nothing is here; returns which these were, and what may not come."""
        fresh = {attempt: name for attempt, name in outputs.items() if not os.path.lexists(f"{self._mirror}/{name}")}
        if not fresh or self._pickles:
            return frozenset(), ()
        with at_home(self._mirror), scratch(self._mirror / PARTIAL) as staging:
            came = self._parcels.bring(fresh, staging)
            others = mirror.adopt(staging, self._directory, [fresh[attempt] for attempt in came])
            return frozenset(came), mirror.publish(staging, self._directory, others).skipped

    def _collect_by_transfer(
        self, outputs: Mapping[str, str], ended: Set[str]
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        extra = [f"{RESULTS}/{attempt}.manifest" for attempt in ended]
        if self._pickles:
            extra += [f"{RESULTS}/{attempt}.pkl" for attempt in ended]
        moved = self._transfers.pull(self._place, [*outputs.values(), *extra], self._mirror)
        late = {}
        for attempt in ended:
            problem = self._problem(attempt, outputs[attempt], moved)
            if problem is not None:
                late[attempt] = problem
        published = mirror.publish(self._mirror, self._directory, [n for a, n in outputs.items() if a not in late])
        for attempt in ended - late.keys():
            if self._pickles:
                self._keep_pickle(attempt)
            mirror.discard(self._mirror, [outputs[attempt], f"{RESULTS}/{attempt}.manifest"])
        return published.skipped, late

    def _problem(self, attempt: str, name: str, moved: Moved) -> str | None:
        """Why what came of an attempt that ended can't be taken for what it left; None if it can."""
        try:
            path = self._mirror / RESULTS / f"{attempt}.manifest"
            differences = manifest.check(path, self._mirror / name, mirror.MUNGED)
        except FileNotFoundError:
            differences = [] if moved.complete else [*moved.problems]
        except ValueError as e:
            return f"the manifest of {attempt} can't be used: {e}"
        if not differences:
            return None
        mirror.discard(self._mirror, [name])  # so that all of it comes anew
        return f"{plural(len(differences), 'file')} of {attempt} did not come as they are there: {differences[0]}"

    def _keep_pickle(self, attempt: str) -> None:
        """Put a pickle where those of local tasks are."""
        came = self._mirror / RESULTS / f"{attempt}.pkl"
        try:
            source = os.open(came, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return  # most attempts have none
        with open(source, "rb") as data, open(create(f"{self._directory}/{RESULTS}/{came.name}"), "wb") as kept:
            while chunk := data.read(1 << 20):
                kept.write(chunk)
        came.unlink()
