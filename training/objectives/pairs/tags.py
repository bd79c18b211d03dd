"""The tags of items as sets of clusters: how they travel with the items, and how much two sets overlap.

A set of tags is a row of 64-bit words, one bit for each cluster of the vocabulary.  The words stand behind the ids of
an item (`training.objectives.pairs.relations.stack_ids`), so they go wherever an item goes, also to other ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

BITS = 64  # of a word


def pack(sets: Sequence[Iterable[int]], clusters: int) -> Tensor:
    """Sets of cluster numbers as words, ``[n, ceil(clusters / 64)]`` int64.

    Args:
        sets: for each item the numbers of its set, below ``clusters``.
        clusters: how many there are; with 0 the words have no columns.
    """
    words = np.zeros((len(sets), -(-clusters // BITS)), np.uint64)
    for row, numbers in enumerate(sets):
        for number in numbers:
            words[row, number // BITS] |= np.uint64(1) << np.uint64(number % BITS)
    return torch.from_numpy(words.view(np.int64))


def overlap(rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """The intersection over union of every row's set and every column's, ``[r, c]``; 0 where both are empty.

    Args:
        rows: words ``[r, w]``.
        columns: words ``[c, w]``.
        dtype: the type of the result; it holds every number up to the size of the vocabulary exactly.
    """
    one, other = _multi_hot(rows, dtype), _multi_hot(columns, dtype)
    common = one @ other.t()
    union = one.sum(1)[:, None] + other.sum(1) - common
    return common / union.clamp_(min=1)


def _multi_hot(words: Tensor, dtype: torch.dtype) -> Tensor:
    """``[n, 64 w]``: 1 where the bit of a cluster is set."""
    places = torch.arange(BITS, device=words.device)
    return ((words[:, :, None] >> places) & 1).flatten(1).to(dtype)
