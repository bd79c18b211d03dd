"""Retrieval metrics with one or several relevant items, ties and chance included.

Definitions (the field's reference implementations differ, so they are spelled out):

- the *rank* of an item is its place, from 1, when items are sorted by falling score; equal scores are ordered
  by item id, so a rank never depends on the sorting routine.  Beside that, every metric is reported with all
  ties resolved against the relevant items (pessimistic) and for them (optimistic);
- ``R@k``: 1 where a relevant item has rank <= k.  For a clip with five captions that is the best of them;
- ``mAP@k``: the sum over relevant items with rank <= k of (relevant items down to it / its rank), divided by
  the number of relevant items, not by min(k, relevant items).  With one relevant item: 1 / rank.

A query's chance level is the expected value of the metric when the order is random, in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

DIRECTIONS = ("text_to_audio", "audio_to_text")
RECALL_AT = (1, 5, 10)
PRECISION_AT = (10, 16)
MEASURED = (*(f"R@{k}" for k in RECALL_AT), *(f"mAP@{k}" for k in PRECISION_AT))


@dataclass(frozen=True)
class Ranks:
    """Ranks of the relevant items of many queries, from 1, ascending within a query.

    Attributes:
        query: ``[r]`` which query, ascending.
        stable, pessimistic, optimistic: ``[r]`` the rank under each rule for ties.
        queries: how many queries there are; each has at least one relevant item.
        items: how many items were ranked.
    """

    query: Ints
    stable: Ints
    pessimistic: Ints
    optimistic: Ints
    queries: int
    items: int

    @staticmethod
    def concatenate(parts: Sequence[Ranks]) -> Ranks:
        """Blocks of queries put one behind the other."""
        starts = np.cumsum([0] + [part.queries for part in parts])
        join = np.concatenate
        return Ranks(
            query=join([part.query + start for part, start in zip(parts, starts, strict=False)]),
            stable=join([part.stable for part in parts]),
            pessimistic=join([part.pessimistic for part in parts]),
            optimistic=join([part.optimistic for part in parts]),
            queries=int(starts[-1]),
            items=parts[0].items if parts else 0,
        )


def rank_relevant(scores: npt.ArrayLike, relevant: npt.ArrayLike, order: npt.ArrayLike) -> Ranks:
    """Rank the relevant items of each query.

    Args:
        scores: ``[q, n]``, higher is better; NaN counts as the worst score.
        relevant: ``[q, n]`` bool, at least one True a row.
        order: ``[n]`` sortable ids of the items; among equal scores the smaller id comes first.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = np.where(np.isnan(values), -np.inf, values)
    wanted = np.asarray(relevant, dtype=bool)
    if values.shape != wanted.shape or values.ndim != 2:
        raise ValueError(f"scores {values.shape} and relevant {wanted.shape} must be the same matrix")
    if len(values) and not wanted.any(axis=1).all():
        raise ValueError("every query needs a relevant item")
    by_id = np.argsort(np.asarray(order), kind="stable")
    values, wanted = values[:, by_id], wanted[:, by_id]
    stable = np.empty_like(values, dtype=np.int64)
    ranking = np.argsort(-values, axis=1, kind="stable")
    np.put_along_axis(stable, ranking, np.arange(1, values.shape[1] + 1)[None, :], axis=1)
    query, item = np.nonzero(wanted)
    found = values[query, item]
    rows = np.cumsum(np.bincount(query, minlength=len(values))) if len(values) else np.zeros(0, np.int64)
    pessimistic, optimistic = np.empty(len(query), np.int64), np.empty(len(query), np.int64)
    start = 0
    for row, end in enumerate(rows):
        pessimistic[start:end], optimistic[start:end] = _bounds(values[row], wanted[row], found[start:end])
        start = end
    place = stable[query, item]
    by_rank = np.lexsort((place, query))
    return Ranks(query[by_rank], place[by_rank], pessimistic, optimistic, len(values), values.shape[1])


def _bounds(
    values: npt.NDArray[np.float64], wanted: npt.NDArray[np.bool_], found: npt.NDArray[np.float64]
) -> tuple[Ints, Ints]:
    """Ranks of one query's relevant items, ascending, when ties fall against them and for them."""
    others = np.sort(values[~wanted])
    found = np.sort(found)[::-1]
    among = np.arange(1, len(found) + 1)
    at_least = len(others) - np.searchsorted(others, found, side="left")
    above = len(others) - np.searchsorted(others, found, side="right")
    return among + at_least, among + above


def metrics(ranks: Ranks) -> dict[str, float]:
    """``R@1 R@5 R@10 mAP@10 mAP@16`` with stable ties, and each one's bounds and chance level.

    Keys: the metric, ``chance_<metric>``, ``pessimistic_<metric>``, ``optimistic_<metric>``; values in 0..1.
    """
    sizes = np.bincount(ranks.query, minlength=ranks.queries)
    result: dict[str, float] = {}
    for prefix, places in (
        ("", ranks.stable),
        ("pessimistic_", ranks.pessimistic),
        ("optimistic_", ranks.optimistic),
    ):
        for k in RECALL_AT:
            result[f"{prefix}R@{k}"] = _mean(_recall(ranks.query, places, ranks.queries, k))
        for k in PRECISION_AT:
            result[f"{prefix}mAP@{k}"] = _mean(average_precision(ranks.query, places, sizes, k))
    for k in RECALL_AT:
        result[f"chance_R@{k}"] = _mean(chance_recall(sizes, ranks.items, k))
    for k in PRECISION_AT:
        result[f"chance_mAP@{k}"] = _mean(chance_average_precision(sizes, ranks.items, k))
    return result


def average_precision(query: Ints, rank: Ints, sizes: Ints, k: int) -> npt.NDArray[np.float64]:
    """AP@k of each query from the ranks ``[r]`` of its relevant items (ascending within the query)."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    hit = np.arange(len(query)) - starts[query] + 1  # the i-th relevant item of its query
    gain = np.where(rank <= k, hit / rank, 0.0)
    return np.bincount(query, weights=gain, minlength=len(sizes)) / sizes


def _recall(query: Ints, rank: Ints, queries: int, k: int) -> npt.NDArray[np.float64]:
    return (np.bincount(query, weights=rank <= k, minlength=queries) > 0).astype(np.float64)


def chance_recall(sizes: Ints, items: int, k: int) -> npt.NDArray[np.float64]:
    """Expected R@k under a random order: 1 - C(items - r, k) / C(items, k) for ``r`` relevant items."""
    miss = np.ones(len(sizes))
    for place in range(min(k, items)):  # no relevant item on this place, given none before it
        miss *= np.clip(items - sizes - place, 0, None) / (items - place)
    return 1.0 - miss


def chance_average_precision(sizes: Ints, items: int, k: int) -> npt.NDArray[np.float64]:
    """Expected AP@k under a random order.

    At place i stands a relevant item with probability r/n, and then each of the i-1 places above it holds one
    of the other r-1 with probability (r-1)/(n-1): E[AP@k] = 1/n sum_{i<=k} (1 + (i-1)(r-1)/(n-1)) / i.
    """
    places = np.arange(1, min(k, items) + 1)
    others = (sizes - 1) / max(1, items - 1)
    expected = (1 + (places[None, :] - 1) * others[:, None]) / places[None, :]
    return expected.sum(axis=1) / items


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
