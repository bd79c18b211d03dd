"""The nearest vectors of a query: by all dot products in small indexes, by inverted lists (faiss) in large ones.

Inverted lists hold vectors in eight bits a number.  What they find is scored again with the vectors themselves, so that
scores are exact in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharding.common.errors import InputError

EXACT_UP_TO = 100_000  # entries; comparing a query with each of them takes tens of milliseconds
RECALL, AMONG = 0.99, 10  # inverted lists must find this share of the ten best entries
REFINED = 4  # times as many entries as are wanted are taken from the lists and scored again
LEAST_REFINED = 200
FEW = 20_000  # entries that a filter leaves: these are compared one by one
MOST_LISTS = 4096  # every vector is compared with the centre of every list when lists are made
TRAINED_ON = 48  # vectors for each list, from which k-means learns the lists' centres
BLOCK = 1 << 16  # vectors that are compared at once

Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lists:
    """Inverted lists in memory, or mapped from a file.

    Attributes:
        index: faiss's ``IndexIVFScalarQuantizer``.
        probes: how many of the lists a query visits where every entry may be found.
    """

    index: Any
    probes: int

    @classmethod
    def open(cls, path: Path, probes: int, entries: int, width: int) -> Lists:
        """Lists in a file, which is mapped and not read."""
        faiss = import_faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise InputError("damaged: faiss cannot read it", file=path, remedy="make the index again") from error
        if not isinstance(index, faiss.IndexIVF) or (index.ntotal, index.d) != (entries, width):
            raise InputError("not the lists of this index", file=path, remedy="make the index again")
        return cls(index, probes)

    def find(self, query: Vectors, count: int, mask: Mask | None = None) -> NDArray[np.int64]:
        """Up to ``count`` entries that are probably nearest to ``query [d]``, in no order that counts.

        A mask makes a search visit as many lists more as it leaves entries fewer, so that as many entries as without it
        are compared; and more of them, until ``count`` are found.
        """
        faiss = import_faiss()
        settings: dict[str, Any] = {}
        probes, allowed = self.probes, self.index.ntotal
        if mask is not None:
            allowed = int(np.count_nonzero(mask))
            probes = -(-probes * len(mask) // max(allowed, 1))
            bits = np.packbits(mask, bitorder="little")
            settings["sel"] = faiss.IDSelectorBitmap(bits)
        while True:
            parameters = faiss.SearchParametersIVF(nprobe=min(probes, self.index.nlist), **settings)
            _, rows = self.index.search(query[None], count, params=parameters)
            found = rows[0][rows[0] >= 0]
            if len(found) >= min(count, allowed) or probes >= self.index.nlist:
                return np.asarray(found)
            probes *= 4


def nearest(
    vectors: Vectors, query: Vectors, count: int, lists: Lists | None = None, mask: Mask | None = None
) -> tuple[NDArray[np.int64], Vectors]:
    """The ``count`` entries with the greatest dot products, and these, best first; equal ones in their order.

    Args:
        vectors: ``[entries, d]``, in memory or mapped.
        query: ``[d]``.
        count: how many are wanted; fewer are returned where there are fewer.
        lists: the inverted lists of the same vectors; None: every vector is compared.
        mask: the entries that may be found; None: all.
    """
    chosen = None if mask is None else np.flatnonzero(mask)
    if chosen is not None and len(chosen) <= FEW:
        rows, scores = chosen, vectors[chosen] @ query
    elif lists is not None:
        rows = np.sort(lists.find(query, max(LEAST_REFINED, REFINED * count), mask))
        scores = vectors[rows] @ query
    else:
        rows, scores = np.arange(len(vectors)), products(vectors, query)
        if chosen is not None:
            rows, scores = chosen, scores[chosen]
    if len(rows) > count:  # ties at the border go to the first entries
        border = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= border)
        kept = kept[np.lexsort((kept, -scores[kept]))][:count]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))
    return rows[order].astype(np.int64), scores[order]


def products(vectors: Vectors, query: Vectors) -> Vectors:
    """The dot product of every vector ``[entries, d]`` with ``query [d]``, ``[entries]``, block by block."""
    found = np.empty(len(vectors), np.float32)
    for begin in range(0, len(vectors), BLOCK):
        np.dot(vectors[begin : begin + BLOCK], query, out=found[begin : begin + BLOCK])
    return found


def make_lists(
    vectors: Vectors, queries: Vectors, path: Path, report: Callable[[int], object] = lambda done: None
) -> dict[str, Any]:
    """Write inverted lists of vectors, and choose how many a query must visit.

    The number of visited lists is twice the smallest power of two with which ``RECALL`` of the ``AMONG`` best entries
    of ``queries`` are found; they are compared with those that comparing every vector finds.

    Args:
        vectors: ``[entries, d]``, in memory or mapped.
        queries: ``[n, d]``.
        path: the file that is written.
        report: called with the number of vectors so far that are in their lists.

    Returns:
        ``lists``, ``probes``, ``recall`` and ``queries`` (how many it was measured with).
    """
    faiss = import_faiss()
    index = _filled(vectors, report)
    best = best_of(vectors, queries, AMONG)
    probes = 1
    while recall_of(vectors, queries, best, Lists(index, probes)) < RECALL and probes < index.nlist:
        probes *= 2
    probes = min(2 * probes, index.nlist)  # other queries are a little harder than those that it was chosen with
    recall = recall_of(vectors, queries, best, Lists(index, probes))
    faiss.write_index(index, str(path))
    return {"lists": index.nlist, "probes": probes, "recall": recall, "queries": len(queries)}


def _filled(vectors: Vectors, report: Callable[[int], object]) -> Any:
    """Faiss's inverted lists with every vector in them."""
    faiss = import_faiss()
    count, width = vectors.shape
    number = min(1 << round(np.log2(4 * np.sqrt(count))), MOST_LISTS)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, number, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.own_fields = False
    index.cp.seed, index.cp.niter = 0, 8
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, TRAINED_ON
    sample = np.random.default_rng(0).choice(count, min(count, TRAINED_ON * number), replace=False)
    report(0)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for begin in range(0, count, BLOCK):
        index.add(np.ascontiguousarray(vectors[begin : begin + BLOCK]))
        report(min(begin + BLOCK, count))
    return index


def best_of(vectors: Vectors, queries: Vectors, count: int) -> NDArray[np.int64]:
    """The ``count`` best entries of each query in any order, ``[queries, count]``, found by comparing every vector."""
    best = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for begin in range(0, len(vectors), BLOCK):
        found = queries @ vectors[begin : begin + BLOCK].T
        kept = _greatest(found, count)
        scores = np.concatenate([scores, np.take_along_axis(found, kept, 1)], axis=1)
        best = np.concatenate([best, begin + kept], axis=1)
        kept = _greatest(scores, count)
        scores, best = np.take_along_axis(scores, kept, 1), np.take_along_axis(best, kept, 1)
    return best


def _greatest(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Where the ``count`` greatest numbers of each row are, in any order."""
    places: NDArray[np.int64] = np.argpartition(-scores, min(count, scores.shape[1]) - 1, axis=1)[:, :count]
    return places


def recall_of(vectors: Vectors, queries: Vectors, best: NDArray[np.int64], lists: Lists) -> float:
    """The share of the best entries of each query that a search through the lists finds."""
    if not len(queries):
        return 1.0
    found = [nearest(vectors, query, best.shape[1], lists)[0] for query in queries]
    return float(np.mean([np.isin(wanted, rows).mean() for wanted, rows in zip(best, found, strict=True)]))


def import_faiss() -> Any:
    """The library of inverted lists, which is an extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError as error:
        raise InputError(
            f"an index of more than {EXACT_UP_TO:,} entries needs faiss", remedy="pip install earshot[search]"
        ) from error
    return faiss
