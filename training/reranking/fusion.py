"""From probabilities of candidates to a new ranking: pure functions over score matrices.

A direction is a matrix ``scores [queries, items]``.  Every query has K candidates, its best items, and **every one of
them** gets what the re-ranker says of it:

    fused_qi = scores_qi + weight * P(yes | q, i)   for the candidates i of q

Items that are no candidates never gain anything.  (The code that AuroLA's authors published adds the probability to
true pairs alone, so its figures cannot be compared.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from training.evaluation.counting import rank_relevant
from training.evaluation.metrics import metrics

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.0, 3.0)


def best_items(scores: Floats, count: int) -> Ints:
    """The ``count`` best items of each query, best first, ``[queries, count]``; equal scores in item order."""
    count = min(count, scores.shape[1])
    return np.argsort(-scores, axis=1, kind="stable")[:, :count].astype(np.int64)


def fuse(scores: Floats, candidates: Ints, probabilities: Floats, weight: float) -> Floats:
    """The scores with what the re-ranker adds to every candidate.

    Args:
        scores: ``[queries, items]``.
        candidates: ``[queries, K]`` items of each query.
        probabilities: ``[queries, K]``, of the answer Yes.
        weight: how much the probability counts.
    """
    fused = scores.copy()
    rows = np.arange(len(scores))[:, None]
    fused[rows, candidates] += np.float32(weight) * probabilities
    return fused


def oracle(scores: Floats, candidates: Ints, relevant: Bools) -> Floats:
    """The scores after a re-ranker that is always right: relevant candidates stand above all others."""
    perfect = np.take_along_axis(relevant, candidates, axis=1).astype(np.float32)
    span = float(scores.max() - scores.min()) + 1
    return fuse(scores, candidates, perfect, span)


def measure(scores: Floats, relevant: Bools) -> dict[str, float]:
    """Retrieval figures of a direction."""
    return metrics(rank_relevant(scores, relevant))


def choose_weight(
    scores: Floats,
    candidates: Ints,
    probabilities: Floats,
    relevant: Bools,
    metric: str,
    weights: Sequence[float] = WEIGHTS,
    figures: Callable[[Floats, Bools], dict[str, float]] = measure,
) -> float:
    """The weight with the best figure on these queries, those of a validation split; of equal ones the smallest."""
    values = [figures(fuse(scores, candidates, probabilities, weight), relevant)[metric] for weight in weights]
    return weights[int(np.argmax(values))]
