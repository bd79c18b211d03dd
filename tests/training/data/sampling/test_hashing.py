"""Hashes as random numbers: uniform, independent, and the same on every machine."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.sampling.hashing import hash64, integers_below, permutation, signed, uniform


def test_hashes_never_change() -> None:
    """A change would give every run another order."""
    assert int(hash64(0)) == 12035550249420947055
    assert hash64(1, 2, np.array([3, 4])).tolist() == [int(hash64(1, 2, 3)), int(hash64(1, 2, 4))]


def test_numbers_are_uniform_and_independent() -> None:
    numbers = uniform(hash64(7, np.arange(100_000)))
    assert numbers.min() >= 0 and numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    assert np.abs(counts - 2000).max() < 250
    others = uniform(hash64(8, np.arange(100_000)))
    assert abs(np.corrcoef(numbers, others)[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 1000))
def test_integers_lie_below_their_limit(seed: int, limit: int) -> None:
    drawn = integers_below(hash64(seed, np.arange(200)), limit)
    assert drawn.min() >= 0 and drawn.max() < limit


@given(st.integers(0, 500), st.integers(-(2**63), 2**64 - 1))
def test_a_permutation_has_every_number_once(size: int, seed: int) -> None:
    assert sorted(permutation(size, seed).tolist()) == list(range(size))


def test_seeds_keep_all_bits() -> None:
    bits = hash64(5, np.arange(1000))
    assert (signed(bits).view(np.uint64) == bits).all() and (signed(bits) < 0).any()
