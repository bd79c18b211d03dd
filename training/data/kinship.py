"""Batches without kin: clips that may share sound must not meet, or the loss would call them negatives."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def separate(kin: Int64, batch: int) -> Int64:
    """Reorder draws so that no two kin share a batch, moving as few as possible.

    A draw that meets kin changes places with one of another batch where both then fit.  A batch that holds
    kin has fewer distinct kin than one that does not, so such a place exists wherever a kin has no more
    draws than there are batches; kin with more stay where they are, and the loss leaves their pairs out.

    Args:
        kin: ``[n]`` kin codes in drawn order.
        batch: size of a batch; a last incomplete batch counts as one.

    Returns:
        ``[n]``: which draw stands at each place.
    """
    order = np.arange(len(kin))
    doubled = clashes(kin, batch)
    if not len(doubled):
        return order
    batches = -(-len(kin) // batch)
    state = _Places(kin.copy(), order, batch, batches)
    for _ in range(3):  # a move into a batch that itself holds kin can fail and succeed a round later
        left = [place for place in doubled if not state.move(int(place))]
        doubled = clashes(state.kin, batch)
        if not len(doubled) or len(left) == 0:
            break
    return state.order


def clashes(kin: Int64, batch: int) -> Int64:
    """Places whose kin already stands earlier in their batch."""
    if len(kin) == 0:
        return np.zeros(0, dtype=np.int64)
    numbers = np.arange(len(kin)) // batch
    sorted_places = np.lexsort((np.arange(len(kin)), kin, numbers))
    same = (np.diff(kin[sorted_places]) == 0) & (np.diff(numbers[sorted_places]) == 0)
    return np.sort(sorted_places[1:][same])


class _Places:
    """The batches of one window while draws change places."""

    def __init__(self, kin: Int64, order: Int64, batch: int, batches: int) -> None:
        self.kin, self.order, self.batch, self.batches = kin, order, batch, batches
        self.members = [Counter(kin[number * batch : (number + 1) * batch].tolist()) for number in range(batches)]
        self.stuck: set[int] = set()  # kin that every batch holds

    def move(self, place: int) -> bool:
        mine, here = int(self.kin[place]), place // self.batch
        if self.members[here][mine] < 2 or mine in self.stuck:
            return self.members[here][mine] < 2
        everywhere = True
        for step in range(1, self.batches):
            there = (here + step) % self.batches
            if self.members[there][mine]:
                continue
            everywhere = False
            start, end = there * self.batch, min((there + 1) * self.batch, len(self.kin))
            for other in range(start, end):
                if not self.members[here][int(self.kin[other])]:
                    self._swap(place, other)
                    return True
        if everywhere:
            self.stuck.add(mine)
        return False

    def _swap(self, a: int, b: int) -> None:
        kin_a, kin_b = int(self.kin[a]), int(self.kin[b])
        self.members[a // self.batch].subtract([kin_a])
        self.members[a // self.batch].update([kin_b])
        self.members[b // self.batch].subtract([kin_b])
        self.members[b // self.batch].update([kin_a])
        self.kin[[a, b]] = self.kin[[b, a]]
        self.order[[a, b]] = self.order[[b, a]]
