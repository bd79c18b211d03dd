"""What every model that hears clips shares: segments of clips through an audio encoder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sharding.common.errors import InputError
from training.data.batch import Batch, EncodedBatch
from training.engine.dropout import SampleDropout
from training.models.encoders import AudioEncoder, EncodedAudio
from training.models.encoders.randomness import splitmix64


class ClipModel(nn.Module):
    """A model with an audio encoder.

    With ``sample_dropout``, what dropout drops in training is a hash of each sample's seed; otherwise torch draws it.
    Whole segments of padding are taken out before the audio encoder, so that they cost nothing and cannot change
    anything.

    Args:
        audio: the encoder.
        sample_dropout: see above.
        keeps_patches: whether `encode_audio` returns one vector for each patch too.
    """

    def __init__(self, audio: AudioEncoder, sample_dropout: bool = False, keeps_patches: bool = False) -> None:
        super().__init__()
        width = getattr(audio, "token_dim", audio.dim)
        if keeps_patches and width != audio.dim:
            what = f"the head reads patches of {width} numbers, and expects as many as a segment has, {audio.dim}"
            remedy = "set audio.pooled to last, or a head that reads segments (head.audio: segments)"
            raise InputError(what, value="audio.pooled: layers", remedy=remedy)
        self.sample_dropout, self.keeps_patches = sample_dropout, keeps_patches
        self.audio = audio

    def clips(self, batch: Batch) -> EncodedAudio:
        """The clips of a batch, encoded here, or before where the batch brings their vectors."""
        if isinstance(batch, EncodedBatch) and batch.segments is not None and batch.segment_mask is not None:
            return EncodedAudio(batch.segments, batch.segment_mask, batch.patches, batch.patch_mask)
        return self.encode_audio(batch.features, batch.frames, batch.seeds)

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
        with self.dropout(seeds):
            pooled, tokens, mask = self.audio(features, frames, seeds)
        return pooled[:count], tokens[:count], mask[:count]

    def dropout(self, seeds: Tensor | None) -> AbstractContextManager[object]:
        """Within this, dropout follows from ``seeds [n]``, one for each row, where the model is trained that way."""
        if seeds is None or not (self.sample_dropout and self.training):
            return nullcontext()
        return SampleDropout(seeds)
