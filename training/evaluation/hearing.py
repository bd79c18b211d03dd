"""How a model hears the clips of a split when they are measured: as they are, or with noise added."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from training.data.batch import Batch
from training.data.settings import DataSettings, MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor
from training.models.encoders.randomness import noisy


@dataclass(frozen=True)
class Noise:
    """Gaussian noise with mean 0.

    Attributes:
        sigma: its standard deviation; 0: there is none.
        place: "wave": added to samples whose full scale is 1; "features": to what the audio encoder reads.
    """

    sigma: float = 0.0
    place: Literal["wave", "features"] = "wave"


@dataclass(frozen=True)
class Hearing:
    """What `training.evaluation.encoding.encode_clips` needs of a model.

    Attributes:
        call: from features ``[b, S, F, T]``, frames ``[b, S]`` and seeds ``[b]`` to what is kept of clips,
            ``[b, ...]`` each.
        settings: the data section of the model's recipe.
        heard: the input that the audio encoder takes.
        tokenizer: None, because no text is read.
        noise: what is added to each clip.
    """

    call: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    settings: DataSettings
    heard: AudioInput
    noise: Noise = dataclasses.field(default_factory=Noise)
    tokenizer: Any = None

    @property
    def audio_input(self) -> AudioInput:
        """How clips are read: as waves if noise is added to them."""
        if self.noise.sigma and self.noise.place == "wave":
            return dataclasses.replace(self.heard, front_end="samples")
        return self.heard

    @torch.inference_mode()
    def audio(self, batch: Batch) -> tuple[Tensor, ...]:
        """The side of a batch's clips, which is kept."""
        features, frames = batch.features, batch.frames
        if self.noise.sigma:
            features = noisy(features, frames, batch.seeds, self.noise.sigma)
            if self.noise.place == "wave":
                features, frames = self._features(features[:, :, 0], frames, batch.seeds)
        return self.call(features, frames, batch.seeds)

    def _features(self, waves: Tensor, lengths: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[b, S, F, T]`` and frames ``[b, S]`` of waves ``[b, S, samples]`` and their lengths."""
        extractor = FeatureExtractor(self.heard, MaskingSettings(), train=False)
        flat, counts = waves.flatten(0, 1), lengths.flatten()
        features = torch.zeros(len(flat), *extractor.shape)
        present = counts > 0
        each = seeds.repeat_interleave(waves.shape[1])
        features[present] = extractor(flat[present], counts[present], each[present])
        return features.unflatten(0, lengths.shape), extractor.frames(counts).view_as(lengths)
