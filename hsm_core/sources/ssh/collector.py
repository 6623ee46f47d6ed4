"""Bringing home what tasks on a host left: transferred into a mirror, held against manifests, published."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from hsm_core.exceptions import Unavailable
from hsm_core.remote import manifest
from hsm_core.remote.record import create
from hsm_core.sources.ssh import mirror
from hsm_core.sources.ssh.rsync import Moved
from hsm_core.sources.ssh.transfers import Transfers
from hsm_core.text import plural

RESULTS = ".hsm/results"


class Collector:
    """Collects from the sweep's directory on a host, `place`, into the sweep's `directory` here.

    `pickles`: whether pickled return values are brought too.
    """

    def __init__(self, transfers: Transfers, source: str, place: str, directory: Path, *, pickles: bool) -> None:
        self._transfers = transfers
        self._source = source
        self._place = place
        self._directory = directory
        self._mirror = directory / ".hsm" / "incoming" / source
        self._pickles = pickles

    def collect(self, outputs: Mapping[str, str], ended: Set[str]) -> Sequence[str]:
        """Bring the output directories of these attempts: names below the sweep's directory, by attempt.

        Those that `ended` are complete here afterwards, but for what may not come: that is returned, in words. Raises
        Unavailable and SourceError.
        """
        extra = [f"{RESULTS}/{attempt}.manifest" for attempt in ended]
        if self._pickles:
            extra += [f"{RESULTS}/{attempt}.pkl" for attempt in ended]
        names = list(outputs.values())
        moved = self._transfers.pull(self._place, [*names, *extra], self._mirror)
        for attempt in ended:
            self._verify(attempt, outputs[attempt], moved)
        published = mirror.publish(self._mirror, self._directory, names)
        for attempt in ended:
            if self._pickles:
                self._keep_pickle(attempt)
            mirror.discard(self._mirror, [outputs[attempt], f"{RESULTS}/{attempt}.manifest"])
        return published.skipped

    def _verify(self, attempt: str, name: str, moved: Moved) -> None:
        path = self._mirror / RESULTS / f"{attempt}.manifest"
        try:
            differences = manifest.check(path, self._mirror / name, mirror.MUNGED)
        except FileNotFoundError:
            differences = [] if moved.complete else [*moved.problems]
        except ValueError as e:
            raise Unavailable(f"{self._source}: the manifest of {attempt} can't be used: {e}") from e
        if differences:
            mirror.discard(self._mirror, [name])  # so that all of it comes anew
            what = f"{plural(len(differences), 'file')} of {attempt} did not come as they are there"
            raise Unavailable(f"{self._source}: {what}: {differences[0]}")

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
