"""A retrieval model: two encoders and a head."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.data.batch import Batch
from training.engine.dropout import SampleDropout
from training.models.encoders import AudioEncoder, EncodedAudio, EncodedText, TextEncoder
from training.models.encoders.randomness import splitmix64

TEXT = 0x54455854  # purpose of a hash: dropout on captions


class EncodedPair(NamedTuple):
    """What a model makes of a batch: encoded clips and captions, and what the head keeps of them."""

    audio: EncodedAudio
    text: EncodedText
    audio_side: tuple[Tensor, ...]
    text_side: tuple[Tensor, ...]


class RetrievalModel(nn.Module):
    """Clips and captions in, the head's two sides out; the head scores sides against each other.

    With ``sample_dropout``, what dropout drops in training is a hash of each sample's seed; otherwise torch draws it.
    Whole segments of padding are taken out before the audio encoder, so that they cost nothing and cannot
    change anything.
    """

    def __init__(self, audio: AudioEncoder, text: TextEncoder, head: Any, sample_dropout: bool = False) -> None:
        super().__init__()
        self.sample_dropout = sample_dropout
        self.keeps_patches: bool = getattr(head, "uses_patches", False)
        self.audio = audio
        self.text = text
        self.head = head

    def encode_audio(self, features: Tensor, frames: Tensor, seeds: Tensor) -> EncodedAudio:
        """``features [b, S, F, T]``, ``frames [b, S]``, ``seeds [b]`` to vectors of segments."""
        clips, count = frames.shape
        present = frames > 0
        counter = torch.arange(count, device=seeds.device)
        seeds = splitmix64(seeds[:, None], counter[None, :])
        pooled, tokens, mask = self._encode_segments(features[present], frames[present], seeds[present])
        segments = pooled.new_zeros(clips, count, pooled.shape[-1])
        segments[present] = pooled
        if not self.keeps_patches:
            return EncodedAudio(segments, present)
        patches = tokens.new_zeros(clips, count, *tokens.shape[1:])
        patches[present] = tokens
        heard = mask.new_zeros(clips, count, mask.shape[1])
        heard[present] = mask
        return EncodedAudio(segments, present, patches.flatten(1, 2), heard.flatten(1, 2))

    def _encode_segments(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`AudioEncoder.forward` of any number of segments: for none, silence is encoded and left out."""
        count = len(features)
        if not count:
            features, frames, seeds = features.new_zeros(1, *features.shape[1:]), frames.new_ones(1), seeds.new_zeros(1)
        with self._dropout(seeds):
            pooled, tokens, mask = self.audio(features, frames, seeds)
        return pooled[:count], tokens[:count], mask[:count]

    def encode_text(self, tokens: Tensor, token_mask: Tensor) -> EncodedText:
        """``tokens [b, N]`` and ``token_mask [b, N]`` to one vector a token and one a caption."""
        return self.text.encode(tokens, token_mask)

    def audio_side(self, features: Tensor, frames: Tensor, seeds: Tensor) -> tuple[Tensor, ...]:
        """What the head keeps of clips, ready to be scored."""
        encoded = self.encode_audio(features, frames, seeds)
        with self._dropout(seeds):
            return self.head.audio_side(encoded)

    def text_side(self, tokens: Tensor, token_mask: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, ...]:
        """What the head keeps of captions, ready to be scored; in training, dropout is drawn from ``seeds [b]``."""
        with self._dropout(None if seeds is None else splitmix64(seeds, torch.full_like(seeds, TEXT))):
            return self.head.text_side(self.encode_text(tokens, token_mask))

    def forward(self, batch: Batch) -> EncodedPair:
        """Clips and captions of a batch, encoded, and their sides."""
        seeds = batch.seeds
        audio = self.encode_audio(batch.features, batch.frames, seeds)
        with self._dropout(seeds):
            audio_side = self.head.audio_side(audio)
        with self._dropout(splitmix64(seeds, torch.full_like(seeds, TEXT))):
            text = self.encode_text(batch.tokens, batch.token_mask)
            return EncodedPair(audio, text, audio_side, self.head.text_side(text))

    def _dropout(self, seeds: Tensor | None) -> AbstractContextManager[object]:
        if seeds is None or not (self.sample_dropout and self.training):
            return nullcontext()
        return SampleDropout(seeds)
