"""Recordings as the input of an audio encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sharding.common.errors import InputError
from training.data.settings import MaskingSettings
from training.data.sound.features import AudioInput, FeatureExtractor, segment_seeds


def prepare(waves: Sequence[Tensor | np.ndarray], audio: AudioInput) -> tuple[Tensor, Tensor]:
    """Recordings as the input of an audio encoder, on the CPU.

    Args:
        waves: b recordings, mono, each ``[samples]`` in floating point at ``audio.rate`` Hz; full scale is 1.  Each may
            be a tensor or an array, as soundfile reads it.  What is beyond ``audio.max_s`` is cut off.
        audio: the input that the encoder takes.

    Returns:
        features ``[b, S, F, T]`` of the S segments of the longest recording, and frames ``[b, S]`` int64, how many of
        the T hold sound; 0 if a shorter recording has no such segment.

    Raises:
        InputError: a wave is not one row of finite floating-point samples.
    """
    extractor = FeatureExtractor(audio, MaskingSettings(), train=False)
    samples = [_samples(wave)[: round(audio.max_s * audio.rate)] for wave in waves]
    longest = max(len(audio.segment_lengths(len(each))) for each in samples)
    features = torch.zeros(len(samples), longest, *extractor.shape)
    frames = torch.zeros(len(samples), longest, dtype=torch.int64)
    for row, each in enumerate(samples):
        segments = torch.from_numpy(audio.cut(each.numpy()))
        lengths = torch.from_numpy(audio.segment_lengths(len(each)))
        count = len(lengths)
        extractor(segments, lengths, torch.from_numpy(segment_seeds(0, count)), out=features[row, :count])
        frames[row, :count] = extractor.frames(lengths)
    return features, frames


def _samples(wave: Tensor | np.ndarray) -> Tensor:
    """One row of float32 samples on the CPU; ``InputError`` for anything else than a mono recording."""
    samples = torch.as_tensor(wave)
    if samples.ndim != 1 or not samples.is_floating_point() or not samples.isfinite().all():
        raise InputError(
            "a recording must be one row of finite floating-point samples",
            value=f"{samples.dtype} {tuple(samples.shape)}",
            remedy="mix the channels to one, and divide integers by full scale",
        )
    return samples.float().cpu()
