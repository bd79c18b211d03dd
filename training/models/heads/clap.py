"""CLAP's head: two linear layers with a nonlinearity for each side, and the cosine (Wu et al. 2023, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.config.checks import check_positive
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import Side, VectorHead, unit
from training.models.heads.pooling import AudioPooling, TextPooling, audio_pool, text_pool

Activation = Literal["relu", "gelu"]


@dataclass(frozen=True)
class Settings:
    """Settings of CLAP's head.

    Attributes:
        name: the key of the registry.
        dim: width of the shared space and of the layer before it.
        activation: between the two layers.
        audio_pooling: over segments: "mean" or "attention".
        text_pooling: the "encoder"'s own, the "first" token, or the "mean" over real tokens.
    """

    name: str = "clap"
    dim: int = 512
    activation: Activation = "relu"
    audio_pooling: AudioPooling = "mean"
    text_pooling: TextPooling = "encoder"

    def __post_init__(self) -> None:
        check_positive(self, "dim")


class ClapHead(VectorHead):
    """Layers have the names that they have in transformers' ``ClapModel``."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.text_pooling = settings.text_pooling
        self.audio_pool = audio_pool(settings.audio_pooling, audio_dim)
        self.audio_projection = Projection(audio_dim, settings.dim, settings.activation)
        self.text_projection = Projection(text_dim, settings.dim, settings.activation)

    def audio_side(self, audio: EncodedAudio) -> Side:
        return (unit(self.audio_projection(self.audio_pool(audio.segments, audio.segment_mask))),)

    def text_side(self, text: EncodedText) -> Side:
        return (unit(self.text_projection(text_pool(self.text_pooling, text))),)


class Projection(nn.Module):
    """Vectors ``[b, width]`` to ``[b, dim]``."""

    def __init__(self, width: int, dim: int, activation: Activation) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, dim)
        self.activation = nn.ReLU() if activation == "relu" else nn.GELU()
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, vectors: Tensor) -> Tensor:
        projected: Tensor = self.linear2(self.activation(self.linear1(vectors)))
        return projected


def build(settings: Settings, audio_dim: int, text_dim: int) -> ClapHead:
    """The head that ``settings`` describes, for encoders of these widths."""
    return ClapHead(settings, audio_dim, text_dim)
