"""A retrieval model: two encoders and a head."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.data.batch import Batch, EncodedBatch
from training.models.clips import ClipModel
from training.models.encoders import AudioEncoder, EncodedAudio, EncodedText, TextEncoder
from training.models.encoders.randomness import splitmix64

TEXT = 0x54455854  # purpose of a hash: dropout on captions


class EncodedPair(NamedTuple):
    """A batch that a model has encoded: clips and captions, and their sides for the head."""

    audio: EncodedAudio
    text: EncodedText
    audio_side: tuple[Tensor, ...]
    text_side: tuple[Tensor, ...]


class RetrievalModel(ClipModel):
    """Clips and captions in, the head's two sides out; the head scores sides against each other."""

    def __init__(self, audio: AudioEncoder, text: TextEncoder, head: Any, sample_dropout: bool = False) -> None:
        super().__init__(audio, sample_dropout, getattr(head, "uses_patches", False))
        self.text = text
        self.head = head

    def encode_text(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        """``tokens [b, N]`` and ``token_mask [b, N]`` to one vector a token and one a caption."""
        return self.text.encode(tokens, token_mask)

    def captions(self, batch: Batch) -> EncodedText:
        """The captions of a batch, encoded here, or before where the batch brings their vectors."""
        if not isinstance(batch, EncodedBatch) or batch.sentence is None:
            return self.encode_text(batch.tokens, batch.token_mask)
        if batch.words is not None and batch.word_mask is not None:
            return EncodedText(batch.words, batch.word_mask, batch.sentence)
        one = torch.ones_like(batch.sentence[:, :1], dtype=torch.bool)
        return EncodedText(batch.sentence[:, None], one, batch.sentence)

    def clip_side(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the head keeps of a batch's clips, ready to be scored."""
        encoded = self.clips(batch)
        with self.dropout(batch.seeds):
            return self.head.audio_side(encoded)

    def audio_side(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, ...]:
        """What the head keeps of clips, ready to be scored."""
        encoded = self.encode_audio(features, frames, seeds)
        with self.dropout(seeds):
            return self.head.audio_side(encoded)

    def text_side(self, tokens: Tensor, token_mask: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, ...]:
        """What the head keeps of captions, ready to be scored; in training, dropout is drawn from ``seeds [b]``."""
        with self.dropout(None if seeds is None else splitmix64(seeds, torch.full_like(seeds, TEXT))):
            return self.head.text_side(self.encode_text(tokens, token_mask))

    def forward(self, batch: Batch) -> EncodedPair:
        """Clips and captions of a batch, encoded, and their sides."""
        seeds = batch.seeds
        audio = self.clips(batch)
        with self.dropout(seeds):
            audio_side = self.head.audio_side(audio)
        with self.dropout(splitmix64(seeds, torch.full_like(seeds, TEXT))):
            text = self.captions(batch)
            return EncodedPair(audio, text, audio_side, self.head.text_side(text))
