"""The dual encoder: one vector a clip, one a caption, their cosine.

Filomeno et al. 2025, eq. 1; Calvet and Toledano 2025, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sharding.common.errors import InputError
from training.config.checks import check_dropout, check_positive
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import Side, VectorHead, unit
from training.models.heads.pooling import AudioPooling, TextPooling, audio_pool, text_pool


@dataclass(frozen=True)
class Settings:
    """Settings of the dual encoder.

    Attributes:
        name: the key of the registry.
        dim: width of the shared space (Calvet and Toledano 2025 section 3.3: 1024); null: the vectors of both encoders
            are compared as they are, which must be equally wide.
        audio_pooling: over segments: "mean", or "attention" as in Filomeno et al. 2025 eq. 3.
        text_pooling: the "encoder"'s own (RoBERTa: its first token), the "first" token, or the "mean" over real
            tokens as in Filomeno et al. 2025 section 4.
        project_text: whether captions are projected too. Otherwise clips are projected into the space of the text
            encoder, whose width ``dim`` must be; so words that training has not seen keep their place, as with a locked
            text encoder (LiT, arXiv 2111.07991).
        dropout: on the pooled vectors, in training.
    """

    name: str = "dual"
    dim: int | None = 1024
    project_text: bool = True
    audio_pooling: AudioPooling = "mean"
    text_pooling: TextPooling = "encoder"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "dim")
        check_dropout(self, "dropout")


class DualEncoder(VectorHead):
    """Each side is one vector of length 1, and a score is the dot product of two."""

    def __init__(self, settings: Settings, audio_dim: int, text_dim: int) -> None:
        super().__init__()
        self.text_pooling = settings.text_pooling
        self.uses_words = settings.text_pooling != "encoder"
        self.audio_pool = audio_pool(settings.audio_pooling, audio_dim)
        if settings.dim is None and audio_dim != text_dim:
            remedy = "set head.dim to the width of a shared space"
            raise InputError(
                "the vectors of the two encoders must have one width, because head.dim is null",
                value=(audio_dim, text_dim),
                remedy=remedy,
            )
        self.audio_projection = nn.Identity() if settings.dim is None else nn.Linear(audio_dim, settings.dim)
        self.text_projection: nn.Module = nn.Identity()
        if settings.dim is not None and settings.project_text:
            self.text_projection = nn.Linear(text_dim, settings.dim)
        elif settings.dim not in (None, text_dim):
            remedy = f"set head.dim to {text_dim}, the width of the text encoder, or project_text to true"
            raise InputError(
                "captions that are not projected must have the width head.dim", value=settings.dim, remedy=remedy
            )
        self.dropout = nn.Dropout(settings.dropout)

    def audio_side(self, audio: EncodedAudio) -> Side:
        pooled = self.audio_pool(audio.segments, audio.segment_mask)
        return (unit(self.audio_projection(self.dropout(pooled))),)

    def text_side(self, text: EncodedText) -> Side:
        pooled = text_pool(self.text_pooling, text)
        return (unit(self.text_projection(self.dropout(pooled))),)


def build(settings: Settings, audio_dim: int, text_dim: int) -> DualEncoder:
    """The head that ``settings`` describes, for encoders of these widths."""
    return DualEncoder(settings, audio_dim, text_dim)
