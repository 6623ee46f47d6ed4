"""Random numbers of forked workers.

Forked processes share the state of every generator. One that nobody seeded must differ between
tasks; one that the app seeded while it was imported must be the same in all, as it is in every
`python train.py`.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any


class Seeds:
    """Watches the import of the app, then sets up the generators in every forked child."""

    def __init__(self) -> None:
        self._seeded = False
        self._state: Any = None
        self._original = random.seed

    def watch(self) -> None:
        """Note from now on whether somebody seeds `random`."""

        def seed(*args: Any, **kwargs: Any) -> None:
            self._seeded = True
            self._original(*args, **kwargs)

        random.seed = seed

    def keep(self) -> None:
        """The app is imported: what was seeded until now stays."""
        random.seed = self._original
        if self._seeded:
            self._state = random.getstate()

    def renew(self) -> None:
        """In a forked child: seed afresh what nobody seeded, restore what somebody did.

        Python itself seeds `random` afresh in every forked child (`os.register_at_fork`).
        """
        if self._state is not None:
            random.setstate(self._state)
        _renew_numpy()
        _renew_torch()


def _renew_numpy() -> None:
    generator = sys.modules.get("numpy.random.mtrand")
    if generator is None:
        return
    # numpy.random.seed(x) drops the SeedSequence that an unseeded generator starts with
    # (numpy/random/_mt19937.pyx, _legacy_seeding).
    if getattr(generator._rand._bit_generator, "_seed_seq", None) is not None:
        generator._rand.seed(list(os.urandom(624)))


def _renew_torch() -> None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "default_generator"):
        return
    # An unseeded generator has 53 random bits (c10::detail::getNonDeterministicRandom): fewer
    # than 33 are somebody's torch.manual_seed.
    if torch.default_generator.initial_seed() >= 1 << 33:
        torch.seed()
