"""Random numbers of forked workers.

Forked processes share the state of every generator. One that nobody seeded must differ between
tasks; one that the app seeded while it was imported must be the same in all, as it is in every
`python train.py`.
"""

from __future__ import annotations

import gc
import random
import secrets
import sys
import weakref
from typing import Any


class Seeds:
    """Watches the import of the app, then sets up the generators in every forked child."""

    def __init__(self) -> None:
        self._seeded = False
        self._state: Any = None
        self._unseeded: weakref.WeakValueDictionary[int, random.Random] = weakref.WeakValueDictionary()
        """generators of type random.Random that nobody seeded, by id"""
        self._entropy: set[int] = set()
        """what NumPy's generators without a seed got in its place"""
        self._bit_generators: list[Any] = []
        """those of NumPy that nobody seeded"""
        self._originals = (random.seed, random.setstate, random.Random.seed, secrets.randbits)
        self._watching = True

    def watch(self) -> None:
        """Note from now on which generators are seeded."""
        seed, setstate, seed_one, randbits = self._originals

        def noted_seed(*args: Any, **kwargs: Any) -> None:
            self._seeded = True
            seed(*args, **kwargs)

        def noted_setstate(state: Any) -> None:
            self._seeded = True
            setstate(state)

        def noted_seed_one(generator: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None:
                self._unseeded[id(generator)] = generator
            else:
                self._unseeded.pop(id(generator), None)
            seed_one(generator, a, version)

        def noted_randbits(k: int) -> int:
            bits = randbits(k)
            if self._watching:
                self._entropy.add(bits)
            return bits

        random.seed, random.setstate = noted_seed, noted_setstate
        random.Random.seed = noted_seed_one  # type: ignore[assignment, method-assign]
        # NumPy takes the function over when it is imported (numpy/random/bit_generator.pyx).
        secrets.randbits = noted_randbits

    def keep(self) -> None:
        """The app is imported: what was seeded until now stays."""
        self._watching = False
        random.seed, random.setstate, random.Random.seed, secrets.randbits = self._originals  # type: ignore[method-assign]
        if self._seeded:
            self._state = random.getstate()
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            found = (o for o in gc.get_objects() if isinstance(o, numpy_random.BitGenerator))
            self._bit_generators = [generator for generator in found if self._drawn(generator)]

    def _drawn(self, bit_generator: Any) -> bool:
        # numpy.random.seed(x) leaves no SeedSequence (numpy/random/_mt19937.pyx, _legacy_seeding).
        sequence = getattr(bit_generator, "_seed_seq", None)
        entropy = getattr(sequence, "entropy", None)
        return isinstance(entropy, int) and entropy in self._entropy

    def renew(self) -> None:
        """In a forked child: seed afresh what nobody seeded, restore what somebody did.

        Python itself seeds `random` afresh in every forked child (`os.register_at_fork`).
        """
        if self._state is not None:
            random.setstate(self._state)
        for generator in self._unseeded.values():
            generator.seed()
        for bit_generator in self._bit_generators:
            # As when it was made: a new SeedSequence, and the state from that, in place.
            bit_generator.__init__()
        _renew_torch()


def _renew_torch() -> None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "default_generator"):
        return
    # An unseeded generator has 53 random bits (c10::detail::getNonDeterministicRandom): fewer
    # than 33 are somebody's torch.manual_seed.
    if torch.default_generator.initial_seed() >= 1 << 33:
        torch.seed()
