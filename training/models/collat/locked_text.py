"""Sounds in the space of a locked text encoder (CoLLAT, section 3.1).

    clip -> audio encoder -> token interaction module -> predicted token embeddings -> locked text encoder -> z^a
    text                                                     -> token embeddings    -> locked text encoder -> z^t

Both vectors come from the same text encoder, which does not change.  So sounds are found by vectors of texts that the
encoder gave before any training, also by those that another system stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from training.models.collat.interaction import TokenInteraction
from training.models.collat.token_space import ReadText, TokenSpace
from training.models.encoders import AudioEncoder, EncodedAudio, EncodedText
from training.models.heads.base import Side, VectorHead, unit
from training.models.retrieval import RetrievalModel


class OwnSpace(VectorHead):
    """The head of clips and captions that have a vector in one space already: their cosine, without parameters."""

    def audio_side(self, audio: EncodedAudio) -> Side:
        return (unit(audio.segments[:, 0]),)

    def text_side(self, text: EncodedText) -> Side:
        assert text.pooled is not None
        return (unit(text.pooled),)


@dataclass(frozen=True)
class WrittenClips:
    """Clips as the text encoder reads them.

    Attributes:
        written: ``[b, M, d]``, the predicted token embeddings.
        read: what the encoder makes of them.
    """

    written: Tensor
    read: ReadText

    @property
    def encoded(self) -> EncodedAudio:
        """The one vector of each clip, ``[b, 1, d]``, in the form that heads take."""
        pooled = self.read.encoded.pooled
        assert pooled is not None
        return EncodedAudio(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device))


class LockedTextModel(RetrievalModel):
    """Clips and captions in, vectors of a locked text encoder out.

    Args:
        audio: the audio encoder.
        interaction: predicts token embeddings from the audio encoder's tokens.
        space: the locked text encoder, and how sounds enter it.
        sample_dropout: as for `RetrievalModel`.
    """

    def __init__(
        self, audio: AudioEncoder, interaction: TokenInteraction, space: TokenSpace, sample_dropout: bool = False
    ) -> None:
        super().__init__(audio, space.text, OwnSpace(), sample_dropout)
        self.interaction, self.space = interaction, space
        self.keeps_patches = True
        self.text.eval()

    def train(self, mode: bool = True) -> Self:
        """Like that of any module, but the text encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        self.text.eval()
        return self

    def predict(self, features: Tensor, frames: Tensor, seeds: Tensor) -> Tensor:
        """The predicted token embeddings ``[b, M, d]`` of clips.

        Args:
            features: ``[b, S, F, T]``.
            frames: ``[b, S]``, valid frames of each segment.
            seeds: ``[b]``, of the samples.
        """
        heard = super().encode_audio(features, frames, seeds)
        assert heard.tokens is not None and heard.token_mask is not None
        with self.dropout(seeds):
            predicted: Tensor = self.interaction(heard.tokens, heard.token_mask, seeds)
        return predicted

    def write(self, features: Tensor, frames: Tensor, seeds: Tensor) -> WrittenClips:
        """Clips as token embeddings, and what the text encoder makes of these; arguments as of `predict`."""
        written = self.predict(features, frames, seeds)
        return WrittenClips(written, self.space.read(written))

    def encode_audio(self, features: Tensor, frames: Tensor, seeds: Tensor) -> EncodedAudio:
        return self.write(features, frames, seeds).encoded

    def encode_text(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        return self.space.encode(tokens, token_mask).encoded
