"""The token interaction module of CoLLAT (section 3.1): random vectors become the token embeddings of a text.

A series of cross-attention blocks turns N vectors, which are drawn from the standard normal distribution, into
predictions of a text's token embeddings.  Each block lets the vectors attend to the tokens of a clip:

    [self-attention]   X = X + MHA(LN(X), LN(X), LN(X))
    cross-attention    X = X + MHA(LN(X), A, A)
    feed-forward       X = X + W_2 gelu(W_1 LN(X))

The paper names cross-attention alone, as in its figure 3; the rest are the usual pre-norm layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.config.checks import check_dropout, check_multiple, check_positive
from training.models.attention import Attention
from training.models.encoders.randomness import normal


@dataclass(frozen=True)
class InteractionSettings:
    """Settings of the token interaction module.

    Attributes:
        blocks: cross-attention blocks in series (the paper: 8, and 1 to 12 in figure 4a).
        width, heads: sizes of the blocks.
        self_attention: whether the vectors also attend to each other.
        start: the random vectors are drawn once for all clips ("fixed"), anew for each sample in training ("redrawn"),
            or once and then trained ("learned").
        dropout: the dropout of attention and of the feed-forward layers, in training.
    """

    blocks: int = 8
    width: int = 512
    heads: int = 8
    self_attention: bool = False
    start: Literal["fixed", "redrawn", "learned"] = "fixed"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "blocks")
        check_multiple(self, "width")
        check_dropout(self, "dropout")


class Block(nn.Module):
    """One step from random vectors towards token embeddings."""

    def __init__(self, settings: InteractionSettings) -> None:
        super().__init__()
        width, heads, rate = settings.width, settings.heads, settings.dropout
        self.own = Attention(width, heads, rate) if settings.self_attention else None
        self.own_norm = nn.LayerNorm(width) if settings.self_attention else None
        self.cross, self.cross_norm = Attention(width, heads, rate), nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Linear(4 * width, width),
            nn.Dropout(rate),
        )

    def forward(self, vectors: Tensor, sounds: Tensor, mask: Tensor) -> Tensor:
        """``vectors [b, M, width]`` after they attended to ``sounds [b, P, width]`` with ``mask [b, P]``."""
        if self.own is not None and self.own_norm is not None:
            normed = self.own_norm(vectors)
            vectors = vectors + self.own(normed, normed)
        vectors = vectors + self.cross(self.cross_norm(vectors), sounds, mask)
        found: Tensor = vectors + self.layers(vectors)
        return found


class TokenInteraction(nn.Module):
    """Turns the tokens of a clip into the token embeddings of a text.

    The last layer is scaled at the start so that its outputs are about as long as the text encoder's embeddings.

    Args:
        settings: sizes and choices.
        count: how many vectors are predicted.
        audio_dim: width of the clip's tokens.
        examples: ``[n, d]``, embeddings of the text encoder's tokens.
    """

    def __init__(self, settings: InteractionSettings, count: int, audio_dim: int, examples: Tensor) -> None:
        super().__init__()
        self.count, self.redraws = count, settings.start == "redrawn"
        start = torch.randn(count, settings.width)
        if settings.start == "learned":
            self.start: Tensor = nn.Parameter(start)
        else:
            self.register_buffer("start", start)
        self.sounds = nn.Sequential(nn.Linear(audio_dim, settings.width), nn.LayerNorm(settings.width))
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(settings.width)
        self.output = nn.Linear(settings.width, examples.shape[1])
        with torch.no_grad():
            self.output.weight.normal_().mul_(examples.std(0)[:, None] / settings.width**0.5)
            self.output.bias.copy_(examples.mean(0))

    def forward(self, tokens: Tensor, mask: Tensor, seeds: Tensor) -> Tensor:
        """Predict token embeddings.

        Args:
            tokens: ``[b, P, audio_dim]``, the vectors of a clip's patches.
            mask: ``[b, P]`` bool, True where there is sound; at least one for each clip.
            seeds: ``[b]`` int64, of the samples; in training the vectors may be drawn from them.

        Returns:
            ``[b, count, d]``.
        """
        vectors = self.start.expand(len(tokens), -1, -1)
        if self.redraws and self.training:
            vectors = normal(seeds, tuple(self.start.shape)).to(vectors)
        sounds = self.sounds(tokens.masked_fill(~mask[..., None], 0))
        for block in self.blocks:
            vectors = block(vectors, sounds, mask)
        predicted: Tensor = self.output(self.norm(vectors))
        return predicted
