"""Sentence-level attention: cross-attention from one vector of a caption to a clip's vectors.

Eqs. 1-7 of Calvet and Toledano 2025 with N = 1: the caption is its sentence embedding.  See `token_attention` for the
equations and for how they are evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from training.config.checks import check_multiple
from training.models.encoders import EncodedText
from training.models.heads.pooling import TextPooling, text_pool
from training.models.heads.token_attention import Settings as TokenSettings
from training.models.heads.token_attention import TokenAttention


@dataclass(frozen=True)
class Settings:
    """Settings of sentence-level attention; see `token_attention.Settings` for those not named here.

    Attributes:
        text_pooling: the sentence embedding: the "encoder"'s own (RoBERTa: its first token, as published), the
            "first" token, or the "mean" over real tokens.
    """

    name: str = "sentence-attention"
    dim: int = 1024
    heads: int = 8
    audio: Literal["segments", "patches"] = "segments"
    compare: Literal["auto", "text", "query"] = "auto"
    bias: bool = True
    text_pooling: TextPooling = "encoder"

    def __post_init__(self) -> None:
        check_multiple(self, "dim")


class SentenceAttention(TokenAttention):
    """The sentence embedding of a caption attends to a clip."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        attention = TokenSettings(
            dim=settings.dim,
            heads=settings.heads,
            audio=settings.audio,
            compare=settings.compare,
            bias=settings.bias,
        )
        super().__init__(attention, audio_dim, text_dim)
        self.text_pooling = settings.text_pooling

    @property
    def moves_layers(self) -> bool:
        """Never: a caption is one vector, which costs less than the vectors of a clip."""
        return False

    def queries(self, text: EncodedText) -> tuple[Tensor, Tensor]:
        pooled = text_pool(self.text_pooling, text)
        return pooled[:, None], text.token_mask.new_ones(len(pooled), 1)


def build(settings: Settings, audio_dim: int, text_dim: int) -> SentenceAttention:
    """The head that ``settings`` describes, for encoders of these widths."""
    return SentenceAttention(settings, audio_dim, text_dim)
