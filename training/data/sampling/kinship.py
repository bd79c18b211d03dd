"""Batches without kin: clips that may share sound must not meet in a batch, or the loss would use them as negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
REACH = 32  # how many batches to either side are searched for a draw to swap with


def separate_kin(kin: Int64, batch: int, alike: bool = False) -> Int64:
    """Reorder draws so that no two draws of one kin share a batch.

    A draw that repeats a kin of its batch is swapped with a draw of a near batch, where each is then the only
    one of its kin.  Where that leaves repeats that another order could avoid, all draws are distributed anew:
    kin by kin, the largest first, one draw to each batch in turn.  After that a kin is repeated in a batch only
    if it has more draws than there are batches, and as rarely as possible.

    Args:
        kin: ``[n]`` the kin of each draw in the drawn order, as integers from 0.
        batch: size of a batch; an incomplete last batch counts as one.
        alike: neighbouring draws were put together on purpose (one dataset, one length), so draws are only
            swapped with near ones and never distributed anew.  The loss leaves out the repeats that remain.

    Returns:
        ``[n]``: which draw comes at each position.
    """
    order = np.arange(len(kin))
    repeats = kin_repeats(kin, batch)
    if not len(repeats):
        return order
    # Where every fourth draw is a repeat, distributing all of them is quicker than searching for swaps.
    if alike or 4 * len(repeats) < len(kin):
        order = _swapped(kin, repeats, batch)
    if alike or len(kin_repeats(kin[order], batch)) <= unavoidable_repeats(kin, batch):
        return order
    return _distributed(kin, batch)


def kin_repeats(kin: Int64, batch: int) -> Int64:
    """The positions whose kin already occurs earlier in their batch."""
    if len(kin) == 0 or np.bincount(kin).max() == 1:
        return np.zeros(0, dtype=np.int64)
    batch_numbers = np.arange(len(kin)) // batch
    # One key for each pair of batch and kin: there are many of both, but their product is far below 2^63.
    keys = batch_numbers * (int(kin.max()) + 1) + kin
    by_key = np.argsort(keys, kind="stable")
    equal = np.diff(keys[by_key]) == 0
    return np.sort(by_key[1:][equal])


def unavoidable_repeats(kin: Int64, batch: int) -> int:
    """How many repeats there are in any order: the draws of each kin beyond one for each batch."""
    counts = np.bincount(kin)
    return int(np.maximum(counts + len(kin) // -batch, 0).sum())


def _distributed(kin: Int64, batch: int) -> Int64:
    """The draws by kin, the largest kin first, distributed to the batches in turn."""
    size = len(kin)
    counts = np.bincount(kin)
    first = np.zeros(len(counts), dtype=np.int64)  # kin of equal size keep the order in which they were drawn
    first[kin[::-1]] = np.arange(size)[::-1]
    by_kin = np.lexsort((np.arange(size), first[kin], -counts[kin]))
    # Each round gives one draw to every batch that has room.  A shorter last batch takes part in fewer rounds.
    positions = np.arange(size)
    rounds = np.lexsort((positions // batch, positions % batch))
    order = np.empty(size, dtype=np.int64)
    order[rounds] = by_kin
    # Within a batch the drawn order is restored: otherwise large kin would always come first.
    return order[np.lexsort((order, positions // batch))]


def _swapped(kin: Int64, repeats: Int64, batch: int) -> Int64:
    """The order after every repeat has been swapped with a draw of a near batch where that is possible."""
    state = _Batches(kin.copy(), batch)
    for _ in range(3):  # a swap with a batch that itself has repeats can fail now and succeed a round later
        moved = [state.move(position) for position in repeats.tolist()]
        repeats = kin_repeats(state.kin, batch)
        if not any(moved) or not len(repeats):
            break
    return state.order


class _Batches:
    """The batches of one window while draws are swapped."""

    def __init__(self, kin: Int64, batch: int) -> None:
        self.kin, self.batch = kin, batch
        self.order = np.arange(len(kin))
        self.batches = -(-len(kin) // batch)
        self._counts: dict[int, Counter[int]] = {}

    def move(self, position: int) -> bool:
        """Swap the draw at ``position`` with one of a near batch; returns whether there was one to swap with."""
        kin, here = int(self.kin[position]), position // self.batch
        if self.counts(here)[kin] < 2:
            return False
        for there in self._near(here):
            if self.counts(there)[kin]:
                continue
            start = there * self.batch
            for other, other_kin in enumerate(self.kin[start : start + self.batch].tolist(), start):
                if not self.counts(here)[other_kin]:
                    self._swap(position, other)
                    return True
        return False

    def counts(self, number: int) -> Counter[int]:
        """How often each kin occurs in a batch."""
        if number not in self._counts:
            self._counts[number] = Counter(self.kin[number * self.batch : (number + 1) * self.batch].tolist())
        return self._counts[number]

    def _near(self, here: int) -> Iterator[int]:
        for step in range(1, REACH + 1):
            if here + step < self.batches:
                yield here + step
            if here >= step:
                yield here - step

    def _swap(self, a: int, b: int) -> None:
        kin_a, kin_b = int(self.kin[a]), int(self.kin[b])
        one, other = self.counts(a // self.batch), self.counts(b // self.batch)
        one[kin_a] -= 1
        other[kin_a] += 1
        other[kin_b] -= 1
        one[kin_b] += 1
        self.kin[[a, b]] = self.kin[[b, a]]
        self.order[[a, b]] = self.order[[b, a]]
