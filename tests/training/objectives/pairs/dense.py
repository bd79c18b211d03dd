"""What is expected of pairs, written out as a whole matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from training.objectives.pairs.relations import SortedIds, related


def relations(texts: Tensor, audios: Tensor, positives: str = "clip or caption") -> Tensor:
    """Int8 ``[texts, audios]``: 1 positive, 0 negative, -1 left out; ids are ``[n, 4]`` int64."""
    found = related(texts, SortedIds(audios), positives)
    dense = torch.zeros(len(texts) * len(audios), dtype=torch.int8)
    dense[found.positive] = 1
    dense[found.left_out] = -1
    return dense.view(len(texts), len(audios))
