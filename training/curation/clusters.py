"""Tags that mean the same as one cluster: k-means over their vectors (AuroLA, arXiv 2602.18010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sharding.common.errors import InputError


def cluster_tags(
    tags: Sequence[str], vectors: npt.NDArray[np.float32], count: int, seed: int = 0
) -> dict[str, dict[str, int]]:
    """Which cluster each tag belongs to, in the published form.

    Args:
        tags: the vocabulary.
        vectors: ``[tags, d]``.
        count: how many clusters; at most one for each tag.
        seed: the seed by which the first centres are drawn.

    Returns:
        ``{"dog barking": {"cluster_index": 3}, ...}``; clusters are numbered in the order of their first tags.
    """
    if count < 1 or not tags:
        raise InputError("clusters of tags need at least one tag and one cluster", value=(len(tags), count))
    labels = _kmeans(vectors, min(count, len(tags)), seed)
    numbers: dict[int, int] = {}
    return {
        tag: {"cluster_index": numbers.setdefault(int(one), len(numbers))}
        for tag, one in zip(tags, labels, strict=True)
    }


def _kmeans(vectors: npt.NDArray[np.float32], count: int, seed: int) -> Any:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise InputError("clusters of tags need scikit-learn", remedy="pip install earshot[analysis]") from error
    return KMeans(count, n_init=4, random_state=seed).fit_predict(vectors)
