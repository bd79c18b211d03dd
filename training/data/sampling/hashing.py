"""Randomness that belongs to a sample: hashes of counters instead of random generators with a state.

Every random choice of the loader is ``hash64(purpose, seed, epoch, clip, ...)``.  It does not depend on which
process makes it, on what was drawn before, or on the version of a library.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Uint64 = NDArray[np.uint64]


def hash64(*parts: int | NDArray[np.integer]) -> Uint64:
    """Hash integers, or arrays of integers that are broadcast together, to uniform uint64.

    It chains the finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), figure 16.
    """
    state: Uint64 = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _splitmix(state ^ _splitmix(_unsigned(part)))
    return state


def uniform(bits: Uint64) -> NDArray[np.float64]:
    """Hashed bits as float64 in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers_below(bits: Uint64, limits: int | NDArray[np.integer]) -> NDArray[np.int64]:
    """Hashed bits as integers in [0, limits)."""
    return np.floor(uniform(bits) * np.asarray(limits)).astype(np.int64)


def permutation(size: int, *parts: int) -> NDArray[np.int64]:
    """The permutation of ``range(size)`` that sorts the hashes of ``parts`` and each number."""
    return np.argsort(hash64(*parts, np.arange(size)), kind="stable")


def signed(bits: Uint64) -> NDArray[np.int64]:
    """Hashed bits as int64, which tensors can hold."""
    return bits.astype(np.uint64).view(np.int64)


def _unsigned(part: int | NDArray[np.integer]) -> Uint64:
    if isinstance(part, int):
        return np.asarray(part & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    return np.asarray(part).astype(np.uint64)


def _splitmix(value: Uint64) -> Uint64:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
