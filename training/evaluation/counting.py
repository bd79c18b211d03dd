"""Where the relevant items of queries stand, counted block by block of a score matrix of any size.

A score matrix has a row for each text and a column for each clip.  Blocks of rows come one after the other, so that
neither the matrix nor its sorted rows are ever in memory.  Of a row, everything is known at once.  Of a column, a first
pass finds the scores of its relevant texts and a second one counts how many scores are above them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import Floats, Ints, Ranking

Block = npt.NDArray[np.float32]  # some rows of a score matrix
SORTED_FROM = 8  # relevant items of a query from which sorting its row is faster than counting for each of them


@dataclass(frozen=True)
class Relevant:
    """Which items are relevant to which queries, sorted by query.

    Attributes:
        query: ``[p]`` the query of each relevant pair.
        item: ``[p]`` its item.
        gain: ``[p]`` how relevant it is, for graded metrics; None: all are equally relevant.
    """

    query: Ints
    item: Ints
    gain: Floats | None = None

    @staticmethod
    def of(query: npt.ArrayLike, item: npt.ArrayLike, gain: npt.ArrayLike | None = None) -> Relevant:
        """Pairs in any order; a pair that occurs twice counts once, with its highest gain."""
        queries, items = np.asarray(query, np.int64), np.asarray(item, np.int64)
        gains = np.ones(len(queries)) if gain is None else np.asarray(gain, np.float64)
        order = np.lexsort((-gains, items, queries))
        queries, items, gains = queries[order], items[order], gains[order]
        new = np.ones(len(queries), bool)
        new[1:] = (np.diff(queries) != 0) | (np.diff(items) != 0)
        return Relevant(queries[new], items[new], None if gain is None else gains[new])

    def within(self, first: int, stop: int) -> slice:
        """The pairs of the queries ``first .. stop - 1``."""
        begin, end = np.searchsorted(self.query, [first, stop])
        return slice(int(begin), int(end))


@dataclass(frozen=True)
class Ties:
    """Sets of items that a query scores equally and of which at least one is relevant; rows as in `Ranking`."""

    query: Ints
    above: Ints
    size: Ints
    relevant: Ints
    gain: Floats

    @staticmethod
    def join(parts: Sequence[Ties]) -> Ties:
        """The ties of several sets of queries, sorted by query, and by falling score within one."""
        join = [np.concatenate([getattr(part, name) for part in parts]) for name in Ties.__dataclass_fields__]
        order = np.lexsort((join[1], join[0]))
        return Ties(*(array[order] for array in join))

    def ranking(self, items: int) -> Ranking:
        """The ranking of the queries that have ties, which are numbered anew from 0."""
        numbers, query = np.unique(self.query, return_inverse=True)
        return Ranking(query, self.above, self.size, self.relevant, len(numbers), items)


_NONE = np.zeros(0, np.int64)
NO_TIES = Ties(_NONE, _NONE, _NONE, _NONE, np.zeros(0))


def comparable(scores: npt.ArrayLike) -> Block:
    """Scores as float32, in which identical sounds tie; NaN becomes the lowest score."""
    values = np.asarray(scores, dtype=np.float32)
    return np.where(np.isnan(values), np.float32(-np.inf), values)


@dataclass
class RowCounter:
    """Ranks the items of each row."""

    relevant: Relevant
    found: list[Ties] = field(default_factory=list)

    def add(self, first: int, block: Block) -> None:
        """Count in the rows from ``first`` on."""
        some = self.relevant.within(first, first + len(block))
        row, item = self.relevant.query[some] - first, self.relevant.item[some]
        gain = np.ones(len(row)) if self.relevant.gain is None else self.relevant.gain[some]
        at, score, count, total = _distinct(row, block[row, item], gain)
        above, size = _count_rows(block, at, score)
        self.found.append(Ties(at + first, above, size, count, total))

    def ties(self) -> Ties:
        """The ties of all rows that were counted."""
        return Ties.join(self.found or [NO_TIES])


@dataclass
class ColumnScores:
    """Finds the scores of the relevant rows of each column; ``relevant.query`` is a column, ``.item`` a row.

    Attributes:
        values: ``[p]`` the score of each pair; NaN if no block held it.
    """

    relevant: Relevant
    values: Block = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.full(len(self.relevant.query), np.nan, np.float32)
        self._by_row = np.argsort(self.relevant.item, kind="stable")
        self._rows = self.relevant.item[self._by_row]

    def add(self, first: int, block: Block) -> None:
        """Find those in the rows from ``first`` on."""
        begin, end = np.searchsorted(self._rows, [first, first + len(block)])
        pairs = self._by_row[begin:end]
        self.values[pairs] = block[self.relevant.item[pairs] - first, self.relevant.query[pairs]]


class ColumnCounter:
    """Ranks the rows of each column, once the scores of its relevant rows are known."""

    def __init__(self, relevant: Relevant, values: Block, columns: int) -> None:
        self.column, self.score, self.count, self.gain = _distinct(relevant.query, values, np.ones(len(values)))
        self.above, self.size = np.zeros(len(self.column), np.int64), np.zeros(len(self.column), np.int64)
        starts = np.searchsorted(self.column, self.column)
        place = np.arange(len(self.column)) - starts  # which of its column's distinct scores each one is
        self._turns = [np.flatnonzero(place == turn) for turn in range(int(place.max(initial=-1)) + 1)]
        self._columns = columns

    def add(self, first: int, block: Block) -> None:
        """Count in some rows; ``first`` does not matter, but every row must come once."""
        for turn in self._turns:
            columns, scores = self.column[turn], self.score[turn]
            some = block if len(turn) == self._columns else block[:, columns]
            for start in range(0, len(some), 2**16 - 1):  # counts are held in 16 bits, which is twice as fast
                part = some[start : start + 2**16 - 1]
                self.above[turn] += (part > scores).sum(0, dtype=np.uint16)
                self.size[turn] += (part == scores).sum(0, dtype=np.uint16)

    def ties(self) -> Ties:
        """The ties of all columns."""
        return Ties.join([Ties(self.column, self.above, self.size, self.count, self.gain)])


def rank_rows(blocks: Iterable[tuple[int, Block]], relevant: Relevant) -> Ties:
    """The ties of the rows of blocks; see `RowCounter`."""
    counter = RowCounter(relevant)
    for first, block in blocks:
        counter.add(first, block)
    return counter.ties()


def rank_relevant(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> Ranking:
    """Find the relevant items of each query in a whole matrix.

    Args:
        scores: ``[q, n]``, higher is better; NaN counts as the lowest score.
        relevant: ``[q, n]`` bool, at least one True in each row.
    """
    values, wanted = comparable(scores), np.asarray(relevant, dtype=bool)
    if values.shape != wanted.shape or values.ndim != 2:
        raise ValueError(f"scores {values.shape} and relevant {wanted.shape} must be the same matrix")
    if len(values) and not wanted.any(axis=1).all():
        raise ValueError("every query needs a relevant item")
    return rank_rows([(0, values)], Relevant.of(*np.nonzero(wanted))).ranking(values.shape[1])


def _distinct(query: Ints, score: Block, gain: Floats) -> tuple[Ints, Block, Ints, Floats]:
    """Each query's different scores, falling, how many pairs have each of them, and the sum of their gains."""
    order = np.lexsort((-score, query))
    query, score, gain = query[order], score[order], gain[order]
    new = np.ones(len(query), bool)
    new[1:] = (np.diff(query) != 0) | (score[1:] != score[:-1])
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(query)))
    total = np.add.reduceat(gain, starts) if len(starts) else np.zeros(0)
    return query[starts], score[starts], counts, total


def _count_rows(block: Block, row: Ints, score: Block) -> tuple[Ints, Ints]:
    """For each row and score: how many scores of the row are above it, and how many equal it."""
    above, size = np.empty(len(row), np.int64), np.empty(len(row), np.int64)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    for start, stop in zip(starts, np.append(starts, len(row))[1:], strict=True):
        values, wanted = block[row[start]], score[start:stop]
        if len(wanted) < SORTED_FROM:
            above[start:stop] = [np.count_nonzero(values > one) for one in wanted]
            size[start:stop] = [np.count_nonzero(values == one) for one in wanted]
        else:
            ascending = np.sort(values)
            left = np.searchsorted(ascending, wanted, side="left")
            right = np.searchsorted(ascending, wanted, side="right")
            above[start:stop], size[start:stop] = len(values) - right, right - left
    return above, size
