"""From several vectors of a clip or a caption to one; padding has no part in any of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from training.models.encoders import EncodedText
from training.models.encoders.pooling import masked_mean, pool

AudioPooling = Literal["mean", "attention"]
TextPooling = Literal["encoder", "first", "mean"]


class MeanPool(nn.Module):
    """Mean over segments that hold sound (Calvet and Toledano 2025: the dual encoder of the challenge's baseline)."""

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """``[b, S, d]`` and mask ``[b, S]`` to ``[b, d]``."""
        return masked_mean(vectors, mask)


class AttentionPool(nn.Module):
    """Learned weights over segments, Filomeno et al. 2025 eq. 3.

    ``AttnPool(z_1 .. z_T) = sum_i alpha_i z_i`` with ``alpha = softmax over i of W_2 tanh(W_1 z_i)``.  The
    paper does not give the width of W_1; here it is a quarter of z's.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(1, dim // 4)
        self.score = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """``[b, S, d]`` and mask ``[b, S]`` to ``[b, d]``."""
        vectors = vectors.masked_fill(~mask[..., None], 0)
        scores = self.score(vectors).squeeze(-1)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.einsum("bn,bnd->bd", scores.softmax(1), vectors)


def audio_pool(name: AudioPooling, dim: int) -> nn.Module:
    """The pooling of segments that a recipe names."""
    return AttentionPool(dim) if name == "attention" else MeanPool()


def text_pool(name: TextPooling, text: EncodedText) -> Tensor:
    """A caption's vector ``[b, d]``: the encoder's own, the first token's, or the mean over real tokens.

    What is the encoder's own depends on how it was trained: the first token for RoBERTa, the mean for MPNet and
    GTR-T5, the last token for CLIP. Filomeno et al. 2025 section 4 takes RoBERTa's mean instead.
    """
    if name == "encoder" and text.pooled is not None:
        return text.pooled
    return pool("mean" if name == "mean" else "first", text.tokens, text.token_mask)
