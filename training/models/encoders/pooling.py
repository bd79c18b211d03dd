"""From one vector a token to one vector; padding has no part in it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["first", "mean", "last"]


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid rows: ``[b, n, d]`` and mask ``[b, n]`` to ``[b, d]``; zero where none is valid."""
    weights = mask.to(vectors.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bn,bnd->bd", weights, vectors.masked_fill(~mask[..., None], 0))


def pool(name: Pooling, vectors: Tensor, mask: Tensor) -> Tensor:
    """``[b, n, d]`` to ``[b, d]``: the first valid vector, the mean over valid ones, or the last valid one."""
    if name == "mean":
        return masked_mean(vectors, mask)
    valid = mask.long()
    if name == "first":
        places = valid.argmax(1)
    else:
        places = mask.shape[1] - 1 - valid.flip(1).argmax(1)
    return vectors[torch.arange(len(vectors), device=mask.device), places]
