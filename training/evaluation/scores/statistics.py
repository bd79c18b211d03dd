"""How sure a figure is, and whether two systems differ, from the values of single queries.

Queries that belong together, such as the five captions of a clip, are drawn together, because their values depend on
each other, and as many single queries would look surer than they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.metrics import Floats, Ints

DRAWS = 2000  # of the bootstrap
FLIPS = 10000  # of the permutation test
LEVEL = 0.95
_CHUNK = 2**22  # numbers that are drawn at once


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, and the interval in which it lies for 95 % of the sets of queries like this one."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean of one system minus that of another one, its interval, and the p-value of the difference."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap(values: Floats, belongs: Ints, seed: int = 0) -> list[Estimate]:
    """Percentile intervals of means (Efron and Tibshirani 1993, section 13.3).

    Args:
        values: ``[queries, measures]``.
        belongs: ``[queries]`` what each query belongs to, such as its clip; these are drawn with replacement.
        seed: the seed of the draws; equal seeds draw the same, whatever the values.
    """
    sums, counts = _clusters(values, belongs)
    draw, clusters = np.random.default_rng(seed), len(counts)
    means = np.empty((DRAWS, values.shape[1]))
    step = max(1, _CHUNK // clusters)
    for start in range(0, DRAWS, step):
        many = min(step, DRAWS - start)
        times = draw.multinomial(clusters, np.full(clusters, 1 / clusters), size=many).astype(np.float64)
        means[start : start + many] = (times @ sums) / (times @ counts)[:, None]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Estimate(*map(float, row)) for row in zip(values.mean(0), low, high, strict=True)]


def paired(one: Floats, other: Floats, belongs: Ints, seed: int = 0) -> list[Difference]:
    """Two systems on the same queries: bootstrap intervals of the difference, and a test that flips its signs.

    The test asks how often the difference would be as large if it were random which system each value came from.

    Args:
        one: ``[queries, measures]``.
        other: the same of another system.
        belongs: as in `bootstrap`; what belongs together is flipped together.
        seed: the seed of the draws.
    """
    differences = one - other
    sums, _ = _clusters(differences, belongs)
    draw, found = np.random.default_rng(seed), np.abs(sums.sum(0))
    beyond = np.zeros(differences.shape[1])
    step = max(1, _CHUNK // len(sums))
    for start in range(0, FLIPS, step):
        many = min(step, FLIPS - start)
        signs = draw.integers(0, 2, (many, len(sums))) * 2.0 - 1
        beyond += (np.abs(signs @ sums) >= found - 1e-9).sum(0)
    chance = (1 + beyond) / (1 + FLIPS)
    intervals = bootstrap(differences, belongs, seed)
    return [Difference(each.mean, each.low, each.high, float(p)) for each, p in zip(intervals, chance, strict=True)]


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of several tests, adjusted so that one of them all errs with the given chance (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    adjusted = np.empty(len(chances))
    highest = 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - place) * chances[number]))
        adjusted[number] = highest
    return [float(value) for value in adjusted]


def _clusters(values: Floats, belongs: Ints) -> tuple[Floats, Floats]:
    """The sum of the values and the number of queries of each cluster: ``[clusters, measures]`` and ``[clusters]``."""
    _, number = np.unique(belongs, return_inverse=True)
    sums: Floats = np.stack([np.bincount(number, weights=column) for column in values.T], axis=1)
    counts: Floats = np.bincount(number).astype(np.float64)
    return sums, counts


def stacked(values: Mapping[str, Floats]) -> Floats:
    """The values of several measures, ``[queries, measures]``."""
    return np.stack(list(values.values()), axis=1)
