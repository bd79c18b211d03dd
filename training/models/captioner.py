"""A model that writes captions: an audio encoder, frozen or not, and a small transformer decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.sound.features import AudioInput
from training.models.attention import DecoderBlock
from training.models.clips import ClipModel
from training.models.encoders import AudioEncoder, EncodedAudio
from training.models.waves import prepare


class CaptionDecoder(nn.Module):
    """Predicts each token of a caption from those before it and from the clip's patches.

    Args:
        audio_dim: width of the patches.
        vocabulary: how many tokens there are.
        width, depth, heads, dropout: settings of the transformer.
        longest: the longest caption in tokens.
    """

    def __init__(
        self, audio_dim: int, vocabulary: int, width: int, depth: int, heads: int, dropout: float, longest: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.layers = nn.ModuleList(DecoderBlock(width, heads, dropout, audio_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, clips: EncodedAudio, tokens: Tensor) -> Tensor:
        """Logits ``[b, N, vocabulary]`` of the token after each of ``tokens [b, N]``."""
        assert clips.tokens is not None and clips.token_mask is not None
        hidden = self.words(tokens) + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden, clips.tokens, clips.token_mask)
        logits: Tensor = self.out(self.norm(hidden))
        return logits


class CaptionerModel(ClipModel):
    """Clips and the tokens of their captions in, logits of the next tokens out."""

    def __init__(self, audio: AudioEncoder, decoder: CaptionDecoder, sample_dropout: bool) -> None:
        super().__init__(audio, sample_dropout, keeps_patches=True)
        self.decoder = decoder

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[b, N - 1, vocabulary]`` of all tokens of the captions but the first."""
        clips = self.encode_audio(batch.features, batch.frames, batch.seeds)
        with self.dropout(batch.seeds):
            logits: Tensor = self.decoder(clips, batch.tokens[:, :-1])
            return logits

    def write(self, features: Tensor, frames: Tensor, seeds: Tensor, first: int, last: int) -> Tensor:
        """The most probable next token, again and again: ``[b, M]`` tokens.

        Args:
            features, frames, seeds: the clips, ``[b, S, F, T]``, ``[b, S]``, ``[b]``.
            first, last: the tokens with which captions begin and end.
        """
        clips = self.encode_audio(features, frames, seeds)
        written = torch.full((len(frames), 1), first, dtype=torch.int64, device=frames.device)
        ended = torch.zeros(len(frames), dtype=torch.bool, device=frames.device)
        for _ in range(len(self.decoder.positions) - 1):  # every rank decodes equally often under ZeRO-3
            following = self.decoder(clips, written)[:, -1].argmax(-1)
            following = following.where(~ended, last)
            written = torch.cat((written, following[:, None]), dim=1)
            ended |= following == last
        return written


@dataclass(frozen=True)
class Captioner:
    """A trained captioner, ready to use: ``captioner = training.models.hub.load_any(folder)``."""

    model: CaptionerModel
    loss: nn.Module
    recipe: Recipe
    tokenizer: Any

    @property
    def audio_input(self) -> AudioInput:
        """The sample rate, the segments and the longest input of the audio encoder."""
        return AudioInput.of(self.model.audio)

    @torch.inference_mode()
    def describe(self, wave: Tensor | np.ndarray) -> str:
        """A caption of one recording, ``[samples]`` at ``audio_input.rate`` Hz; see `training.models.waves.prepare`."""
        device = next(self.model.parameters()).device
        features, frames = (tensor.to(device) for tensor in prepare([wave], self.audio_input))
        seeds = torch.zeros(1, dtype=torch.int64, device=device)
        tokens = self.model.write(features, frames, seeds, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        text: str = self.tokenizer.decode(tokens[0].tolist(), skip_special_tokens=True)
        return text.strip()

    def try_out(self) -> None:
        """Nothing that was loaded can disagree with the weights."""

    def usage(self) -> str:
        """Python lines for the model card."""
        return f"print(model.describe(wave))  # float32, mono, {self.audio_input.rate} Hz"
