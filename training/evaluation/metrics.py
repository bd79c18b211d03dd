"""Retrieval metrics with one or several relevant items for each query, and with ties.

The items of a query are sorted by falling score, and the rank of an item is its position from 1:

- ``R@k`` is 1 if a relevant item has a rank of at most k, else 0.
- ``mAP@k`` is the sum of (number of relevant items up to this rank) / rank over the relevant items of a rank of at most
  k, divided by the number of all relevant items, and not by the smaller of it and k.  For one relevant item it is
  1 / rank.  Reference implementations of the field differ in the divisor.

Items of equal score have no order.  The value of a metric is its expected value over all orders of equal scores, each
as likely as the others; it is computed in closed form.  So a collapsed model, which gives every item the same score,
is at chance level.  The bounds are the values when relevant items come last among equals (pessimistic) or first
(optimistic).  The chance level is the expected value over all orders of all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DIRECTIONS = ("text_to_audio", "audio_to_text")
RECALL_AT = (1, 5, 10)
PRECISION_AT = (10, 16)
MEASURED = (*(f"R@{k}" for k in RECALL_AT), *(f"mAP@{k}" for k in PRECISION_AT))


@dataclass(frozen=True)
class Ranking:
    """Where the relevant items of many queries are: one row for each set of tied items that has a relevant one.

    The rows are sorted by query, and by falling score within a query.

    Attributes:
        query: ``[t]`` the query.
        above: ``[t]`` how many items have a higher score.
        size: ``[t]`` how many items have this score; 1: no tie.
        relevant: ``[t]`` how many of these are relevant; at least 1.
        queries: how many queries there are; each has at least one relevant item.
        items: how many items were ranked for each query.
    """

    query: Ints
    above: Ints
    size: Ints
    relevant: Ints
    queries: int
    items: int

    @property
    def relevant_of_query(self) -> Ints:
        """``[queries]`` how many relevant items each query has."""
        return np.bincount(self.query, weights=self.relevant, minlength=self.queries).astype(np.int64)

    @property
    def relevant_above(self) -> Ints:
        """``[t]`` how many relevant items of the query have a higher score."""
        before = np.cumsum(self.relevant) - self.relevant
        return before - before[np.searchsorted(self.query, self.query)]

    def ranks(self, relevant_first: bool) -> tuple[Ints, Ints]:
        """Query ``[r]`` and rank ``[r]`` of each relevant item, if relevant items come first or last among equals."""
        number = np.arange(self.relevant.sum()) - np.repeat(np.cumsum(self.relevant) - self.relevant, self.relevant)
        start = self.above if relevant_first else self.above + self.size - self.relevant
        return np.repeat(self.query, self.relevant), np.repeat(start, self.relevant) + number + 1


def metrics(ranking: Ranking) -> dict[str, float]:
    """``R@1 R@5 R@10 mAP@10 mAP@16``, and the bounds and the chance level of each; all in 0..1.

    The keys are the metric, ``chance_<metric>``, ``pessimistic_<metric>`` and ``optimistic_<metric>``.
    """
    sizes = ranking.relevant_of_query
    result = {name: _mean(values) for name, values in of_each_query(ranking).items()}
    for prefix, relevant_first in (("pessimistic_", False), ("optimistic_", True)):
        query, rank = ranking.ranks(relevant_first)
        result |= {f"{prefix}R@{k}": _mean(_recall(query, rank, ranking.queries, k)) for k in RECALL_AT}
        result |= {f"{prefix}mAP@{k}": _mean(_average_precision(query, rank, sizes, k)) for k in PRECISION_AT}
    chance = _one_tie(sizes, ranking.items)
    return result | {f"chance_{name}": _mean(values) for name, values in of_each_query(chance).items()}


def of_each_query(ranking: Ranking) -> dict[str, Floats]:
    """The expected value of every measure for each query, ``[queries]``; `MEASURED` names them."""
    found = {f"R@{k}": expected_recall(ranking, k) for k in RECALL_AT}
    return found | {f"mAP@{k}": expected_average_precision(ranking, k) for k in PRECISION_AT}


def expected_recall(ranking: Ranking, k: int) -> Floats:
    """Expected R@k of each query ``[queries]`` over all orders of tied items.

    If g items are tied behind a higher ones and r of them are relevant, the m = k - a that come first are without a
    relevant one with probability C(g - r, m) / C(g, m).
    """
    _, first = np.unique(ranking.query, return_index=True)  # only the highest relevant items matter
    above, size, relevant = ranking.above[first], ranking.size[first], ranking.relevant[first]
    miss = np.ones(len(first))
    for position in range(k):  # no relevant item at this position among the tied ones, given none before it
        within = position < np.minimum(k - above, size)
        left = np.maximum(size - position, 1)
        miss *= np.where(within, np.clip(size - relevant - position, 0, None) / left, 1.0)
    return 1.0 - miss


def expected_average_precision(ranking: Ranking, k: int) -> Floats:
    """Expected AP@k of each query ``[queries]`` over all orders of tied items.

    Let g items be tied behind a higher ones, of which h are relevant, and let r of the g be relevant.  Position i among
    them holds a relevant item with probability r / g.  Then each of the i - 1 positions before it holds one with
    probability (r - 1) / (g - 1).  The sum of r / g (h + 1 + (i - 1) (r - 1) / (g - 1)) / (a + i) is what they add.
    """
    position = np.arange(1, k + 1)[None, :]
    above, size, relevant = ranking.above[:, None], ranking.size[:, None], ranking.relevant[:, None]
    others = (relevant - 1) / np.maximum(size - 1, 1)
    hits = ranking.relevant_above[:, None] + 1 + (position - 1) * others
    counts = (position <= size) & (above + position <= k)
    gain = np.where(counts, relevant / size * hits / (above + position), 0.0).sum(axis=1)
    return np.bincount(ranking.query, weights=gain, minlength=ranking.queries) / ranking.relevant_of_query


def expected_ndcg(ranking: Ranking, gain: Floats, ideal: Sequence[Floats], k: int) -> Floats:
    """Expected nDCG@k of each query ``[queries]`` over all orders of tied items (Järvelin and Kekäläinen 2002).

    The item at position i adds its gain / log2(i + 1); the sum is divided by that of the best order.

    Args:
        ranking: where the items with a gain are.
        gain: ``[t]`` the sum of the gains of each set of tied items; the items without any have none.
        ideal: the gains of each query's items, falling.
        k: the last position that counts.
    """
    discounts = 1 / np.log2(np.arange(1, k + 1) + 1)
    upto = np.concatenate(([0.0], np.cumsum(discounts)))
    begin, end = np.minimum(ranking.above, k), np.minimum(ranking.above + ranking.size, k)
    found = np.bincount(
        ranking.query, weights=gain / ranking.size * (upto[end] - upto[begin]), minlength=ranking.queries
    )
    best = np.array([(gains[:k] * discounts[: len(gains[:k])]).sum() for gains in ideal])
    return found / best


def _one_tie(relevant: Ints, items: int) -> Ranking:
    """The ranking in which all items of every query are tied; ``relevant [queries]`` of them are relevant."""
    queries = len(relevant)
    return Ranking(np.arange(queries), np.zeros(queries, np.int64), np.full(queries, items), relevant, queries, items)


def _recall(query: Ints, rank: Ints, queries: int, k: int) -> Floats:
    return (np.bincount(query, weights=rank <= k, minlength=queries) > 0).astype(np.float64)


def _average_precision(query: Ints, rank: Ints, sizes: Ints, k: int) -> Floats:
    """AP@k of each query from the ranks ``[r]`` of its relevant items, which ascend within the query."""
    starts = np.cumsum(sizes) - sizes
    hits = np.arange(len(query)) - starts[query] + 1
    gain = np.where(rank <= k, hits / rank, 0.0)
    return np.bincount(query, weights=gain, minlength=len(sizes)) / sizes


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
