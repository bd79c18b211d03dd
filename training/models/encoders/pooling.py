"""One vector from the vectors of many tokens; padding has no influence."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["first", "mean", "last"]


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean ``[b, d]`` of the rows of ``[b, n, d]`` that the mask ``[b, n]`` marks; zero where it marks none."""
    weights = mask.to(vectors.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bn,bnd->bd", weights, vectors.masked_fill(~mask[..., None], 0))


def masked_statistics(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each ``[b, d]``, of the rows of ``[b, n, d]`` that the mask ``[b, n]`` marks."""
    mean = masked_mean(vectors, mask)
    variance = masked_mean((vectors - mean[:, None]).square(), mask)
    return mean, (variance + 1e-6).sqrt()  # the gradient of the root of 0 is infinite


def pool(name: Pooling, vectors: Tensor, mask: Tensor) -> Tensor:
    """The first, the last or the mean ``[b, d]`` of the vectors of ``[b, n, d]`` that the mask ``[b, n]`` marks."""
    if name == "mean":
        return masked_mean(vectors, mask)
    marked = mask.long()
    if name == "first":
        index = marked.argmax(1)
    else:
        index = mask.shape[1] - 1 - marked.flip(1).argmax(1)
    return vectors[torch.arange(vectors.shape[0], device=mask.device), index]  # ONNX takes len() for a constant
