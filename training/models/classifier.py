"""A classifier of sounds: an audio encoder, frozen or not, and a probe that reads its vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.config.sections import Recipe
from training.data.batch import Batch
from training.data.sound.features import AudioInput
from training.models.attention import DecoderBlock
from training.models.clips import ClipModel
from training.models.encoders import AudioEncoder, EncodedAudio
from training.models.encoders.pooling import masked_mean
from training.models.waves import prepare


class LinearProbe(nn.Module):
    """One linear layer on the mean of a clip's segments."""

    uses_patches = False

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, labels)

    def forward(self, clips: EncodedAudio) -> Tensor:
        """Logits ``[b, labels]``."""
        logits: Tensor = self.layer(masked_mean(clips.segments, clips.segment_mask))
        return logits


class DecoderProbe(nn.Module):
    """One layer of a transformer decoder: a trained query attends to a clip's patches, then one linear layer.

    CoLLAT (section 4.2) probes frozen features with it.
    """

    uses_patches = True

    def __init__(self, width: int, labels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.decoder = DecoderBlock(width, heads, dropout)
        self.layer = nn.Linear(width, labels)

    def forward(self, clips: EncodedAudio) -> Tensor:
        """Logits ``[b, labels]``."""
        assert clips.tokens is not None and clips.token_mask is not None
        query = self.query.expand(len(clips.tokens), -1, -1).to(clips.tokens.dtype)
        found = self.decoder(query, clips.tokens, clips.token_mask)
        logits: Tensor = self.layer(found[:, 0])
        return logits


class ClassifierModel(ClipModel):
    """A model that gives one logit for each label of a clip."""

    def __init__(self, audio: AudioEncoder, probe: LinearProbe | DecoderProbe, sample_dropout: bool) -> None:
        super().__init__(audio, sample_dropout, probe.uses_patches)
        self.probe = probe

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``[b, labels]`` of a batch's clips."""
        return self.logits(batch.features, batch.frames, batch.seeds)

    def logits(self, features: Tensor, frames: Tensor, seeds: Tensor) -> Tensor:
        """``[b, labels]`` of ``features [b, S, F, T]``, ``frames [b, S]``, ``seeds [b]``."""
        clips = self.encode_audio(features, frames, seeds)
        with self.dropout(seeds):
            logits: Tensor = self.probe(clips)
            return logits


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, ready to use: ``classifier = training.models.hub.load_any(folder)``."""

    model: ClassifierModel
    loss: nn.Module
    recipe: Recipe

    tokenizer = None  # it reads no text

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the probabilities."""
        labels: tuple[str, ...] = self.recipe.task.labels
        return labels

    @property
    def audio_input(self) -> AudioInput:
        """The sample rate, the segments and the longest input of the audio encoder."""
        return AudioInput.of(self.model.audio)

    @torch.inference_mode()
    def classify(self, wave: Tensor | np.ndarray) -> dict[str, float]:
        """The probability of each label for one recording, the most probable one first.

        Args:
            wave: mono ``[samples]`` at ``audio_input.rate`` Hz; see `training.models.waves.prepare`.
        """
        device = next(self.model.parameters()).device
        features, frames = (tensor.to(device) for tensor in prepare([wave], self.audio_input))
        seeds = torch.zeros(1, dtype=torch.int64, device=device)
        logits = self.model.logits(features, frames, seeds)[0].float()
        single = self.recipe.task.kind == "single"
        probabilities = (logits.softmax(0) if single else logits.sigmoid()).tolist()
        return dict(sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: -pair[1]))

    def try_out(self) -> None:
        """Nothing that was loaded can disagree with the weights."""

    def usage(self) -> str:
        """Python lines for the model card."""
        return f"print(model.classify(wave))  # float32, mono, {self.audio_input.rate} Hz"
