"""Batches without kin: clips that may share sound must not meet, or the loss would call them negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
REACH = 32  # batches to either side in which a draw looks for a place


def separate_kin(kin: Int64, batch: int, like: bool = False) -> Int64:
    """Reorder draws so that no two kin share a batch.

    A draw that meets kin changes places with one of a near batch where both then fit.  Where that does not
    help everybody (kin with many draws, fewer kin than places), all draws are dealt afresh: kin after kin,
    the largest first, one draw to each batch in turn.  Then only kin with more draws than there are batches
    meet, each as rarely as is possible.

    Args:
        kin: ``[n]`` kin codes in drawn order, at least 0.
        batch: size of a batch; a last incomplete batch counts as one.
        like: neighbouring draws are meant to meet (one dataset, one length): nothing is dealt afresh, and
            what still meets is left out by the loss.

    Returns:
        ``[n]``: which draw stands at each place.
    """
    order = np.arange(len(kin))
    doubled = kin_repeats(kin, batch)
    if not len(doubled):
        return order
    # Where every other draw meets kin, a search for places is a long way to what a deal finds at once.
    if like or 4 * len(doubled) < len(kin):
        order = _swapped(kin, doubled, batch)
    if like or len(kin_repeats(kin[order], batch)) <= unavoidable_repeats(kin, batch):
        return order
    return _dealt(kin, batch)


def kin_repeats(kin: Int64, batch: int) -> Int64:
    """Places whose kin already stands earlier in their batch."""
    if len(kin) == 0:
        return np.zeros(0, dtype=np.int64)
    numbers = np.arange(len(kin)) // batch
    # One key a place: batches are many and kin are many, but their product is far below 2^63.
    together = numbers * (int(kin.max()) + 1) + kin
    sorted_places = np.argsort(together, kind="stable")
    same = np.diff(together[sorted_places]) == 0
    return np.sort(sorted_places[1:][same])


def unavoidable_repeats(kin: Int64, batch: int) -> int:
    """How many draws meet kin in any order: those of a kin beyond one in each batch."""
    counts = np.bincount(kin)
    return int(np.maximum(counts + len(kin) // -batch, 0).sum())


def _dealt(kin: Int64, batch: int) -> Int64:
    """DrawnSamples by kin, the largest kin first, dealt to the batches in turn."""
    size = len(kin)
    counts = np.bincount(kin)
    first = np.zeros(len(counts), dtype=np.int64)  # kin of one size stay in the order in which they were drawn
    first[kin[::-1]] = np.arange(size)[::-1]
    by_kin = np.lexsort((np.arange(size), first[kin], -counts[kin]))
    # Turn t gives each batch that has a place t one draw; a last, shorter batch has fewer turns.
    places = np.arange(size)
    turns = np.lexsort((places // batch, places % batch))
    order = np.empty(size, dtype=np.int64)
    order[turns] = by_kin
    # Within a batch, by where the draws stood: large kin must not always come first.
    return order[np.lexsort((order, places // batch))]


def _swapped(kin: Int64, doubled: Int64, batch: int) -> Int64:
    """DrawnSamples after every doubled one has looked for a place nearby."""
    state = _Places(kin.copy(), batch)
    for _ in range(3):  # a move into a batch that itself holds kin can fail and succeed a round later
        moved = [state.move(place) for place in doubled.tolist()]
        doubled = kin_repeats(state.kin, batch)
        if not any(moved) or not len(doubled):
            break
    return state.order


class _Places:
    """The batches of one window while draws change places."""

    def __init__(self, kin: Int64, batch: int) -> None:
        self.kin, self.batch = kin, batch
        self.order = np.arange(len(kin))
        self.batches = -(-len(kin) // batch)
        self._members: dict[int, Counter[int]] = {}

    def move(self, place: int) -> bool:
        """Whether the draw, which met kin, found another place."""
        mine, here = int(self.kin[place]), place // self.batch
        if self.members(here)[mine] < 2:
            return False
        for there in self._near(here):
            if self.members(there)[mine]:
                continue
            start = there * self.batch
            for at, other in enumerate(self.kin[start : start + self.batch].tolist(), start):
                if not self.members(here)[other]:
                    self._swap(place, at)
                    return True
        return False

    def members(self, number: int) -> Counter[int]:
        """How often each kin stands in a batch."""
        if number not in self._members:
            self._members[number] = Counter(self.kin[number * self.batch : (number + 1) * self.batch].tolist())
        return self._members[number]

    def _near(self, here: int) -> Iterator[int]:
        for step in range(1, REACH + 1):
            if here + step < self.batches:
                yield here + step
            if here >= step:
                yield here - step

    def _swap(self, a: int, b: int) -> None:
        kin_a, kin_b = int(self.kin[a]), int(self.kin[b])
        one, other = self.members(a // self.batch), self.members(b // self.batch)
        one[kin_a] -= 1
        other[kin_a] += 1
        other[kin_b] -= 1
        one[kin_b] += 1
        self.kin[[a, b]] = self.kin[[b, a]]
        self.order[[a, b]] = self.order[[b, a]]
